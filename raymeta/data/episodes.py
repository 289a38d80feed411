"""Cuts one user's history in two: what was seen so far (support) and what came after (query)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History

Unit = Literal["visits", "items"]


def cut(
    history: History,
    size: int,
    *,
    unit: Unit,
    positive_types: Sequence[int],
    repeat: bool = False,
) -> tuple[History, NDArray[np.int64]]:
    """Splits a history (stored order) after its first `size` visits or distinct positive items.

    Args:
        history: all events of the user, in the order of the task folder.
        size: number of units in the support; 0 gives an empty support.
        unit: `visits` counts whole visits; `items` counts distinct positive items of the catalogue,
            and the support then ends with the event that brought the last of them.
        positive_types: event types that make an item relevant.
        repeat: keep items of the support in the query too (shops where people buy again).

    Returns:
        The support events, and the distinct catalogue items `[Q]` (ascending) with a positive event
        after the support, less (unless `repeat`) those in the support. Items outside the catalogue
        are left out.
    """
    positive = np.isin(history.event_type, positive_types) & (history.item >= 0)
    seen = history.visit < size if unit == "visits" else _first_items(history, positive, size)
    later = np.unique(history.item[~seen & positive])
    if not repeat:
        later = later[~np.isin(later, history.item[seen])]
    return history.where(seen), later


def latest_values(history: History, items: NDArray[np.int64]) -> NDArray[np.float32]:
    """The value of the user's last event on each of `items` (ascending), NaN where unknown.

    For items of a query this is a later value, since what comes last is never in the support.
    """
    order = np.argsort(history.item, kind="stable")
    last = np.searchsorted(history.item[order], items, side="right") - 1
    return history.value[order][last]


def num_units(history: History, *, unit: Unit, positive_types: Sequence[int]) -> int:
    """How many visits, or distinct positive items of the catalogue, the history has."""
    if unit == "visits":
        return len(np.unique(history.visit))
    positive = np.isin(history.event_type, positive_types) & (history.item >= 0)
    return len(np.unique(history.item[positive]))


def _first_items(history: History, positive: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Mask of the events up to the first occurrence of the `size`-th distinct positive item."""
    positions = np.flatnonzero(positive)
    _, first = np.unique(history.item[positions], return_index=True)
    firsts = np.sort(positions[first])
    if size == 0:
        end = 0
    elif size > len(firsts):
        end = len(history)
    else:
        end = int(firsts[size - 1]) + 1
    return np.arange(len(history)) < end
