"""Impressions and what came of them: the one join, for tasks, evaluation and serving alike.

A click (or conversion) belongs to the user's latest impression of the same item at or before it. A
conversion counts where its impression was clicked, as the decomposition of ESMM has it (Ma et al.:
Entire Space Multi-Task Model, SIGIR 2018, eq. 1). The join reads times and ids alone, so that it
does not depend on the order in which events arrived; what came before its impression belongs to
none.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FeedbackTypes(NamedTuple):
    """Indices of the event types that are joined."""

    impression: int
    click: int
    conversion: int


@dataclass(frozen=True)
class Feedback:
    """The impressions among some events, in their order.

    Attributes:
        row: `[N]` where each stands among the events.
        click, conversion: `[N]` what came of each.
        shown: `[E]` the row of the impression that each event belongs to, its own for an
            impression; -1 for none.
    """

    row: NDArray[np.int64]
    click: NDArray[np.bool_]
    conversion: NDArray[np.bool_]
    shown: NDArray[np.int64]


def join_feedback(
    *,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    event_type: NDArray[np.int64],
    timestamp_ms: NDArray[np.int64],
    types: FeedbackTypes,
) -> Feedback:
    """Joins clicks and conversions to impressions; events `[E]` in any order."""
    is_shown = event_type == types.impression
    order = np.lexsort((~is_shown, timestamp_ms, item, user))
    latest = np.maximum.accumulate(np.where(is_shown[order], np.arange(len(order)), -1))
    row = order[latest]
    same = (latest >= 0) & (user[row] == user[order]) & (item[row] == item[order])
    shown = np.full(len(order), -1, np.int64)
    shown[order] = np.where(same, row, -1)

    def has(wanted: int) -> NDArray[np.bool_]:
        found = shown[(event_type == wanted) & (shown >= 0)]
        return np.bincount(found, minlength=len(order)).astype(np.bool_)

    click = has(types.click)
    rows = np.flatnonzero(is_shown)
    return Feedback(rows, click[rows], (click & has(types.conversion))[rows], shown)


@dataclass(frozen=True)
class Labelled:
    """Impressions of one user that are to be judged, `[Q]`, in the order of time.

    Attributes:
        item: catalogue indices.
        value: the number of the slot that showed each, 0 where unknown.
        click, conversion: 1 where it came to that.
    """

    item: NDArray[np.int64]
    value: NDArray[np.float32]
    click: NDArray[np.float32]
    conversion: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item)
