"""Cuts one user's history in two: what was seen so far (support) and what came after (query)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History, SupportView
from raymeta.data.impressions import FeedbackTypes, Labelled, join_feedback
from raymeta.data.task_dataset import UserTasks

Unit = Literal["visits", "items", "impressions"]

ALL_BUT_LAST = 1_000_000
"""The support size that leaves the last unit alone to be found: a returning user."""


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
        size: number of units in the support; 0 gives an empty one, `ALL_BUT_LAST` all but the last.
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
    if size == ALL_BUT_LAST:
        size = num_units(history, unit=unit, positive_types=positive_types) - 1
    seen = history.visit < size if unit == "visits" else _first_items(history, positive, size)
    later = np.unique(history.item[~seen & positive])
    if not repeat:
        later = later[~np.isin(later, history.item[seen])]
    return history.where(seen), later


def cut_impressions(
    history: History, size: int, *, types: FeedbackTypes
) -> tuple[History, Labelled]:
    """Splits a history after its first `size` impressions of catalogue items, by (time, item).

    Returns:
        The support events: those impressions and what had come of them when the next one was
        shown, since later feedback is not known yet. And the later impressions, with all that came
        of each.
    """
    kept = np.flatnonzero(history.item >= 0)
    known = history.where(kept[np.lexsort((history.item[kept], history.timestamp_ms[kept]))])
    joined = join_feedback(
        user=np.zeros(len(known), np.int64),
        item=known.item,
        event_type=known.event_type,
        timestamp_ms=known.timestamp_ms,
        types=types,
    )
    seen, later = joined.row[:size], joined.row[size:]
    in_support = np.isin(joined.shown, seen)
    if len(later):
        in_support &= known.timestamp_ms <= known.timestamp_ms[later[0]]
    query = Labelled(
        item=known.item[later],
        value=np.nan_to_num(known.value[later], nan=0.0),
        click=joined.click[size:].astype(np.float32),
        conversion=joined.conversion[size:].astype(np.float32),
    )
    return known.where(in_support), query


def labelled_impressions(users: UserTasks, view: SupportView) -> Labelled:
    """All impressions of catalogue items of some users end to end, with what came of each."""
    assert view.feedback is not None, "data.feedback names what is joined"
    events, user = users.events, users.user_of_event()
    kept = np.flatnonzero(events.item >= 0)
    joined = join_feedback(
        user=user[kept],
        item=events.item[kept],
        event_type=events.event_type[kept],
        timestamp_ms=events.timestamp_ms[kept],
        types=view.feedback,
    )
    rows = kept[joined.row]
    return Labelled(
        item=events.item[rows],
        value=np.nan_to_num(events.value[rows], nan=0.0),
        click=joined.click.astype(np.float32),
        conversion=joined.conversion.astype(np.float32),
    )


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
