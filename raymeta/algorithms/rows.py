"""Meta-gradients whose cost does not grow with the vocabulary: only touched rows take part.

A table of embeddings is read at the rows that a batch's examples name, and at no other. So the
learner is given a table of just those rows, and examples that name them by their place in it; what
comes back is a gradient of a few rows, as (row ids, values) in a sparse tensor. Neither the forward
pass, nor the inner loops of a table that is fast, nor the backward pass ever sees the rest: a dense
gradient of 10^7 rows would cost more to fill with zeros than the whole meta-gradient.

The outer step of such a gradient is `torch.optim.SparseAdam`, which moves only these rows and their
moments (Adam as if a row's untouched steps had not been; "lazy" Adam). Everything else of a learner
is as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.errors import ConfigError
from raymeta.types import Examples, MetaGradient, Params, TaskBatch, TaskState


@dataclass(frozen=True)
class TouchedRows:
    """A learner that takes meta-gradients on the touched rows of its tables alone.

    Args:
        algorithm: the learner.
        tables_of: for each table among its meta-parameters, `[V, ...]`, the fields of examples that
            hold its row numbers (int64, any shape). The model must use these fields only to look
            rows of that table up, and no two tables may share a field; numbers outside the table
            are an error of the look-up as before.

    Example:
        >>> learner = TouchedRows(maml(model, ...), tables_of={"items.weight": ["item"]})
        >>> learner.meta_gradient(params, batch).gradients["items.weight"].is_sparse
        True
    """

    algorithm: MetaAlgorithm
    tables_of: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        fields = [field for named in self.tables_of.values() for field in named]
        if len(fields) != len(set(fields)) or not fields:
            raise ConfigError(
                f"tables_of={dict(self.tables_of)} names no field, or one field for two tables.",
                remedy="Give each table the fields of examples that hold its row numbers.",
            )

    def init(self, generator: torch.Generator) -> Params:
        return self.algorithm.init(generator)

    def tables(self) -> Params:
        return self.algorithm.tables()

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        return self.algorithm.adapt(meta_params, support)

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        return self.algorithm.score(meta_params, state, candidates)

    def meta_gradient(
        self,
        meta_params: Params,
        batch: TaskBatch,
        *,
        per_task: bool = False,
        outer_step: int | None = None,
    ) -> MetaGradient:
        """As the learner's own, with the gradients of the tables sparse.

        Raises:
            ConfigError: `per_task` was asked for: noise that hides a task must reach every row, so
                a private gradient of a table cannot be sparse.
        """
        if per_task:
            raise ConfigError(
                "Gradients of touched rows are not given per task.",
                remedy="Take them from the learner itself; each then has all rows.",
            )
        rows = {name: self._touched(batch, fields) for name, fields in self.tables_of.items()}
        few = {n: p[rows[n]] if n in rows else p for n, p in meta_params.items()}
        renamed = TaskBatch(self._by_place(batch.support, rows), self._by_place(batch.query, rows))
        found = self.algorithm.meta_gradient(few, renamed, outer_step=outer_step)
        gradients = {
            name: _sparse(rows[name], gradient, meta_params[name]) if name in rows else gradient
            for name, gradient in found.gradients.items()
        }
        return MetaGradient(gradients, found.loss_sum, found.num_tasks)

    def _touched(self, batch: TaskBatch, fields: Sequence[str]) -> Tensor:
        """The rows that the batch names, ascending."""
        parts = [
            part[field].reshape(-1)
            for part in (batch.support, batch.query)
            for field in fields
            if field in part
        ]
        return torch.unique(torch.cat(parts))

    def _by_place(self, examples: Examples, rows: Params) -> Examples:
        """Examples that name a row by its place among the touched ones."""
        places = {
            field: torch.searchsorted(rows[table], examples[field])
            for table, fields in self.tables_of.items()
            for field in fields
            if field in examples
        }
        return {**examples, **places}


def _sparse(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    # rows are unique and ascending, which is what coalesced means
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), values, table.shape, is_coalesced=True, check_invariants=False
    )
