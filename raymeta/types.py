"""The values that every layer exchanges, and the legend of tensor-shape suffixes.

Shape suffixes, used in names such as `scores_TI`:

    T  tasks (users) in a batch         S  support rows of a task (padded)
    Q  query rows of a task (padded)    I  items in the catalogue
    C  candidate items                  D  width of an item vector
    F  features                         B  any batch

Padding: index tensors hold 0 where `mask` is False; a padded row never changes a result.
"""

from dataclasses import dataclass

from torch import Tensor

Params = dict[str, Tensor]
"""Named parameters: meta-parameters, fast weights, or their gradients."""

Examples = dict[str, Tensor]
"""Rows to learn from or to be judged on, by field name, each `[T, ...]` (or without T inside vmap).

For a recommender, support has: `item` int64 `[T, S]` catalogue index; `event_type` int64 `[T, S]`
index into the artifact's event types; `count` float `[T, S]` how often the pair occurred;
`value` float `[T, S]` (0 where unknown); `age_days` float `[T, S]` measured against the user's
last event; `mask` bool `[T, S]`; `place` int64 `[T, S]` index into the view's places, -1 where
unknown, if adapting sees them; and, where adapting sees user features, `user_index` int64 and
`user_weight` float `[T, W]` (`raymeta.data.features`); and, for users that a model's tables were
counted on, `own_item` and `own_mask` `[T, N]`, the items that they were counted with, and where
(`own_place`), or `counted`
and `counted_value` `[T, S]`, what a user added to the counts of each row's item. Query has `item`
and `mask` `[T, Q]`, `value` (0 where unknown), and these two where the support has them.
For a plain module, `x`, `y` and `mask`.
"""

TaskState = dict[str, Tensor]
"""Whatever differs per user after adapting, each `[T, ...]`; opaque outside its algorithm."""


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of one outer step: what to adapt on and what to be judged on."""

    support: Examples
    query: Examples

    @property
    def num_tasks(self) -> int:
        return int(next(iter(self.support.values())).shape[0])


@dataclass(frozen=True)
class MetaGradient:
    """The sum over tasks of d(query loss)/d(meta-parameters), ready to be reduced over workers.

    Attributes:
        gradients: one tensor a meta-parameter, summed over the `num_tasks` tasks; with
            `per_task`, each has a leading `[T]` and is not summed.
        loss_sum: the query loss summed over tasks (a scalar, or `[T]` with `per_task`).
        num_tasks: how many tasks were summed.
    """

    gradients: Params
    loss_sum: Tensor
    num_tasks: int
