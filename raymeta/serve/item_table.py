"""What can be asked of the items of one model: which exist, may be shown, and pass a filter.

The columns are those of the artifact's catalogue with the shop's changes over them; one is read
when a filter first names it. Leaves scores to `recommender`, and changes to `overlay`.

Shapes: I items of the model, in index order.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymeta.errors import DataError
from raymeta.serve.user_events.base import ItemChange

MAX_MASKS = 64
"""Filters whose masks are kept: a shop asks for the same few again and again."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One part of a filter.

    Attributes:
        feature: the item's feature.
        any_of: values, one of which the item must have; or None.
        at_least: the smallest number, or None.
        at_most: the largest number, or None.
    """

    feature: str
    any_of: tuple[str | float | bool, ...] | None = None
    at_least: float | None = None
    at_most: float | None = None


ItemFilter = tuple[Condition, ...]
"""All of them must hold."""


@dataclass(frozen=True)
class _Column:
    """Values `[I]`: numbers (NaN where missing), or sets of texts, or truth values as texts."""

    numbers: NDArray[np.float64] | None
    values: list[frozenset[str | bool]] | None


@dataclass
class ItemTable:
    """Items of one model with the shop's changes.

    Args:
        items: rows in index order: `item_id` and feature columns.
        index_of: item id -> index.
        changes: the shop's, by item id; they win over `items`.
        version: of the catalogue that `changes` make.
    """

    items: pa.Table
    index_of: Mapping[str, int]
    changes: Mapping[str, ItemChange]
    version: int
    _columns: dict[str, _Column] = field(default_factory=dict, repr=False)
    _masks: OrderedDict[ItemFilter, Tensor] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.features = frozenset(self.items.column_names).union(
            *(change.features for change in self.changes.values())
        ) - {"item_id"}
        closed = [
            self.index_of[item_id]
            for item_id, change in self.changes.items()
            if item_id in self.index_of and (change.deleted or not change.available)
        ]
        self.closed = tuple(sorted(closed))
        """Indices that may not be recommended."""

    def require(self, wanted: ItemFilter) -> None:
        """Refuses a filter by a feature that no item has.

        Raises:
            DataError: naming it, and what there is.
        """
        for condition in wanted:
            if condition.feature not in self.features:
                known = ", ".join(sorted(self.features)) or "none"
                raise DataError(
                    f"No item has the feature {condition.feature!r} that the filter names.",
                    remedy=f"Items have: {known}.",
                )

    def mask(self, wanted: ItemFilter) -> Tensor:
        """Which items pass all conditions, bool `[I]`; called from any thread."""
        with self._lock:
            mask = self._masks.get(wanted)
            if mask is None:
                passes = np.ones(self.items.num_rows, np.bool_)
                for condition in wanted:
                    passes &= _passing(self._column(condition.feature), condition)
                mask = self._masks[wanted] = torch.from_numpy(passes)
                if len(self._masks) > MAX_MASKS:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(wanted)
            return mask

    def describe(self, item_id: str) -> dict[str, Any] | None:
        """The item's features, the shop's over the catalogue's; None where neither has it."""
        change = self.changes.get(item_id)
        index = self.index_of.get(item_id)
        if index is None:
            return dict(change.features) if change is not None and not change.deleted else None
        if change is not None and change.deleted:
            return None
        (row,) = self.items.slice(index, 1).to_pylist()
        known = {n: v for n, v in row.items() if n != "item_id" and v is not None}
        return {**known, **(change.features if change is not None else {})}

    def _column(self, feature: str) -> _Column:
        if feature not in self._columns:
            self._columns[feature] = self._read(feature)
        return self._columns[feature]

    def _read(self, feature: str) -> _Column:
        values: list[Any] = [None] * self.items.num_rows
        if feature in self.items.column_names:
            column = self.items[feature]
            numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
            if numeric and not any(feature in c.features for c in self.changes.values()):
                numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
                return _Column(numbers, None)
            values = column.to_pylist()
        for item_id, change in self.changes.items():
            index = self.index_of.get(item_id)
            if index is not None and feature in change.features:
                values[index] = change.features[feature]
        if all(value is None or _is_number(value) for value in values):
            return _Column(np.array([np.nan if v is None else v for v in values], float), None)
        return _Column(None, [_as_set(value) for value in values])


def _passing(column: _Column, condition: Condition) -> NDArray[np.bool_]:
    if column.numbers is not None:
        passes = ~np.isnan(column.numbers)
        if condition.any_of is not None:
            numbers = [v for v in condition.any_of if _is_number(v)]
            passes &= np.isin(column.numbers, np.array(numbers, float))
        if condition.at_least is not None:
            passes &= column.numbers >= condition.at_least
        if condition.at_most is not None:
            passes &= column.numbers <= condition.at_most
        return passes
    assert column.values is not None
    if condition.any_of is None:
        return np.zeros(len(column.values), np.bool_)  # a range of what is no number
    wanted = frozenset().union(*(_as_set(value) for value in condition.any_of))
    return np.array([not wanted.isdisjoint(values) for values in column.values], np.bool_)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_set(value: Any) -> frozenset[str | bool]:
    """Texts and truth values to be compared; numbers beside texts are compared as texts."""
    if value is None:
        return frozenset()
    if isinstance(value, (list, tuple)):
        return frozenset().union(*map(_as_set, value))
    return frozenset([value if isinstance(value, (str, bool)) else f"{value:g}"])
