"""The items that can be recommended, in a fixed order, with the features they came with."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.task_dataset import UserTasks
from raymeta.errors import DataError


@dataclass(frozen=True)
class Catalogue:
    """Items `[I]` in index order.

    Attributes:
        items: one row an item: `item_id` and any feature columns.
        kinds: feature column -> `categorical`, `multi_categorical`, `numeric` or `text`.
    """

    items: pa.Table
    kinds: dict[str, str] = field(default_factory=dict)

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        return tuple(self.items["item_id"].to_pylist())

    @cached_property
    def index_of(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    def __len__(self) -> int:
        return int(self.items.num_rows)

    def localise(self, users: UserTasks, item_ids: NDArray[np.str_]) -> UserTasks:
        """Rewrites item indices into `item_ids` as indices of this catalogue, -1 if not in it."""
        # one more at the end, where -1 points: a search has no item and keeps none
        to_local = np.array([*(self.index_of.get(str(i), -1) for i in item_ids), -1], np.int64)
        local: History = replace(users.events, item=to_local[users.events.item])
        return replace(users, events=local)


def catalogue_from_users(
    users: UserTasks,
    *,
    item_ids: NDArray[np.str_],
    items: pa.Table,
    kinds: dict[str, str],
    positive_types: tuple[int, ...],
    min_users: int,
) -> Catalogue:
    """The items on which at least `min_users` of `users` have a positive event.

    `items` holds the features by `item_id`; an item without a row there has empty features.
    """
    events = users.events
    positive = np.isin(events.event_type, positive_types)
    pairs = np.unique(users.user_of_event()[positive] * len(item_ids) + events.item[positive])
    users_per_item = np.bincount(pairs % len(item_ids), minlength=len(item_ids))
    kept = item_ids[users_per_item >= min_users]
    if len(kept) == 0:
        raise DataError(
            f"No item has a positive event of {min_users} training users or more.",
            remedy="Lower data.min_item_users, or check data.positive_events.",
        )
    wanted = pa.table({"item_id": pa.array(kept.tolist(), pa.string())})
    columns = ["item_id", *[name for name in items.column_names if name != "item_id"]]
    joined = wanted.join(items.select(columns), "item_id", join_type="left outer")
    return Catalogue(joined.sort_by("item_id"), kinds)
