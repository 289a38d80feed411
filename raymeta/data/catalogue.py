"""The items that can be recommended, in a fixed order, with the features they came with."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.features import NO_FEATURES, EncodedFeatures, FeatureVocab
from raymeta.data.task_dataset import UserTasks
from raymeta.errors import DataError


@dataclass(frozen=True)
class Catalogue:
    """Items `[I]` in index order.

    Attributes:
        items: one row an item: `item_id` and any feature columns.
        kinds: feature column -> `categorical`, `multi_categorical`, `numeric` or `text`.
        vocab: how the features are read, counted on the catalogue that was trained on.
    """

    items: pa.Table
    kinds: dict[str, str] = field(default_factory=dict)
    vocab: FeatureVocab = NO_FEATURES

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        return tuple(self.items["item_id"].to_pylist())

    @cached_property
    def index_of(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    def __len__(self) -> int:
        return int(self.items.num_rows)

    @cached_property
    def features(self) -> EncodedFeatures:
        """The items' features, encoded, `[I]` records."""
        return self.vocab.encode(self.items)

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
    wanted = pa.array(sorted(kept.tolist()), pa.string())
    # a take rather than a join, which refuses columns of lists; no row there gives nulls
    rows = items.drop_columns(["item_id"]).take(pc.index_in(wanted, value_set=items["item_id"]))
    table = pa.table({"item_id": wanted, **dict(zip(rows.column_names, rows.columns, strict=True))})
    return Catalogue(table, kinds, FeatureVocab.count(table, kinds))
