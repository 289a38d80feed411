"""The one way from a user's events to a support set: tasks, evaluation and serving all call it.

`History` is one user's events in the index space of a catalogue. `support_from_events` is a pure
function of the events themselves: it does not depend on the order they arrived in, on the wall
clock, or on who else is in the batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.data.features import FeatureRow
from raymeta.data.impressions import Feedback, FeedbackTypes, Labelled, join_feedback
from raymeta.data.intent import MS_PER_DAY, Asked, IntentRows, intent_support
from raymeta.errors import DataError
from raymeta.types import Examples

_NOT_TOLD: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True)
class History:
    """One user's events, each array `[E]`, in any order.

    Attributes:
        item: catalogue index, -1 where the item is not in the catalogue.
        event_type: index into the event types of the data set or artifact.
        timestamp_ms: UTC milliseconds.
        value: rating, quantity or price; NaN where unknown.
        visit: 0-based ordinal of the visit the event belongs to; -1 where visits are not known.
        features: what the shop knows of the user beside events, encoded; None where nothing is.
        place: index of where it happened, -1 where that is not known; of all events if left out.
    """

    item: NDArray[np.int64]
    event_type: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float32]
    visit: NDArray[np.int64]
    features: FeatureRow | None = None
    place: NDArray[np.int64] = field(default_factory=lambda: _NOT_TOLD)

    def __post_init__(self) -> None:
        if self.place is _NOT_TOLD:
            object.__setattr__(self, "place", np.full(len(self.item), -1, np.int64))

    @classmethod
    def empty(cls, features: FeatureRow | None = None) -> Self:
        """A user without events."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, np.empty(0, np.float32), none, features)

    def __len__(self) -> int:
        return len(self.item)

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64] | slice) -> "History":
        """The events that `keep` (a mask, positions or a slice) selects."""
        arrays = [f.name for f in fields(self) if f.name != "features"]
        return replace(self, **{name: getattr(self, name)[keep] for name in arrays})


@dataclass(frozen=True)
class SupportView:
    """Which events `adapt` sees: a part of the definition of `adapt`, stored in the artifact.

    Attributes:
        max_events: only the last so many events of the catalogue's items count.
        event_types: indices of the types that count; the others are kept in the log only.
        unknown_user: stands for the features of a user of whom none are known; None where adapting
            sees no user features.
        min_value: events with a smaller value do not count; those without one do.
        feedback: rows are impressions, with the clicks and conversions that came of them; None
            where each event is a row of its own.
        intent: rows are moments with what was bought after them (`raymeta.data.intent`).
        places: where events happen, by index; none where adapting does not see it.
    """

    max_events: int
    event_types: tuple[int, ...]
    unknown_user: FeatureRow | None = None
    min_value: float | None = None
    feedback: FeedbackTypes | None = None
    intent: IntentRows | None = None
    places: tuple[str, ...] = ()


def support_from_events(histories: Sequence[History], view: SupportView) -> Examples:
    """Builds the padded support of a batch of users.

    Events whose type or item does not count are left out; the rest is ordered by (time, item,
    type), cut to the last `view.max_events`, and repeats of one (item, type) become one row with
    their `count`, the latest time, value and place. Ages are in days before the user's own
    last counted event, so the wall clock has no part in it.

    With `view.feedback`, each impression among those events is a row, with `click` and `conversion`
    (1 or 0, see `raymeta.data.impressions`); what belongs to no impression is left out. With
    `view.intent`, rows are moments (`raymeta.data.intent.intent_support`).

    Returns:
        `Examples` with `[T, S]` fields (see `raymeta.types`); S holds the longest support
        (`padded_width`).
    """
    events = _Retained.of(histories, view)
    if view.intent is not None:
        made = intent_support(
            events.user,
            events.item,
            events.time_ms,
            num_users=len(histories),
            rows=view.intent,
        )
        return {name: torch.from_numpy(value) for name, value in made.items()}
    rows = _support_rows(events, view)
    num_rows = np.bincount(rows.user, minlength=len(histories))
    column = np.arange(len(rows.user)) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows)
    shape = (len(histories), padded_width(num_rows.tolist()))
    support: Examples = {}
    dtypes = _SUPPORT_DTYPES if view.feedback is None else {**_SUPPORT_DTYPES, **_LABEL_DTYPES}
    if view.places:
        dtypes = {**dtypes, "place": np.int64}
    for name, dtype in dtypes.items():
        padded: NDArray[Any] = np.zeros(shape, dtype)
        padded[rows.user, column] = getattr(rows, name)
        support[name] = torch.from_numpy(padded)
    if view.unknown_user is not None:
        features = [history.features or view.unknown_user for history in histories]
        support["user_index"] = torch.from_numpy(np.stack([row.index for row in features]))
        support["user_weight"] = torch.from_numpy(np.stack([row.weight for row in features]))
    return support


_SUPPORT_DTYPES = {
    "item": np.int64,
    "event_type": np.int64,
    "count": np.float32,
    "value": np.float32,
    "age_days": np.float32,
    "mask": np.bool_,
}
_LABEL_DTYPES = {"click": np.float32, "conversion": np.float32}


@dataclass(frozen=True)
class _Rows:
    """Support rows of a batch of users, each `[R]`, by (user, time of the latest event)."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    event_type: NDArray[np.int64]
    count: NDArray[np.int64]
    value: NDArray[np.float32]
    place: NDArray[np.int64]
    age_days: NDArray[np.float64]
    mask: bool = True
    click: NDArray[np.bool_] | None = None
    conversion: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class _Retained:
    """The events of a batch of users that count, each `[E]`, by (user, time, item, type).

    `last_ms` is the time of each one's user's last.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    event_type: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    value: NDArray[np.float32]
    place: NDArray[np.int64]
    last_ms: NDArray[np.int64]

    @classmethod
    def of(cls, histories: Sequence[History], view: SupportView) -> "_Retained":
        """All users in one pass: a pass for each would cost more than adapting does."""
        item, event_type, time, value, place = (
            np.concatenate([getattr(history, name) for history in histories])
            for name in ("item", "event_type", "timestamp_ms", "value", "place")
        )
        user = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        of_type = np.zeros(len(user), np.bool_)
        for counted in view.event_types:
            of_type |= event_type == counted
        kept = np.flatnonzero((item >= 0) & of_type & reaches(value, view.min_value))
        ordered = kept[np.lexsort((event_type[kept], item[kept], time[kept], user[kept]))]
        last_of_user = np.cumsum(np.bincount(user[kept], minlength=len(histories))) - 1
        last = last_of_user[user[ordered]]
        order = ordered[last - np.arange(len(ordered)) < view.max_events]
        last_ms = time[ordered[last_of_user]] if len(ordered) else time
        return cls(
            user[order], item[order], event_type[order], time[order], value[order],
            place[order], last_ms[user[order]],
        )  # fmt: skip


def _support_rows(events: _Retained, view: SupportView) -> _Rows:
    if view.feedback is not None:
        joined = join_feedback(
            user=events.user,
            item=events.item,
            event_type=events.event_type,
            timestamp_ms=events.time_ms,
            types=view.feedback,
        )
        count = np.ones(len(joined.row), np.int64)
        return _rows_at(events, joined.row, count, joined)
    pair = events.item * (events.event_type.max(initial=0) + 1) + events.event_type
    latest, count = _latest_of_each(events.user * (pair.max(initial=0) + 1) + pair)
    return _rows_at(events, latest, count)


def _rows_at(
    events: _Retained,
    rows: NDArray[np.int64],
    count: NDArray[np.int64],
    joined: Feedback | None = None,
) -> _Rows:
    return _Rows(
        user=events.user[rows],
        item=events.item[rows],
        event_type=events.event_type[rows],
        count=count,
        value=np.nan_to_num(events.value[rows], nan=0.0),
        place=events.place[rows],
        age_days=(events.last_ms[rows] - events.time_ms[rows]) / MS_PER_DAY,
        click=None if joined is None else joined.click,
        conversion=None if joined is None else joined.conversion,
    )


def _latest_of_each(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each value stands last, ascending, and how often it occurs."""
    by_key = np.argsort(key, kind="stable")
    in_order = key[by_key]
    ends = np.append(np.flatnonzero(in_order[1:] != in_order[:-1]), len(key) - 1)[: len(key)]
    latest, count = by_key[ends], np.diff(ends, prepend=-1)
    by_time = np.argsort(latest)
    return latest[by_time], count[by_time]


def padded_width(lengths: Iterable[int]) -> int:
    """The power of two that holds the longest row, at least 1.

    Batches so come in a few shapes and not in one each: what is worked out once a shape (the form
    that an inner loop runs in, compiled code) is worked out a few times, and is kept a few times.
    """
    return 1 << max(0, max(lengths, default=1) - 1).bit_length()


def pad_items(
    items: Sequence[NDArray[np.int64]], values: Sequence[NDArray[np.float32]] | None = None
) -> Examples:
    """Pads lists of catalogue indices to `item` and `mask`, both `[T, Q]` (`padded_width`).

    With `values` (ratings, say; NaN where unknown) also `value` `[T, Q]`, 0 where unknown.
    """
    width = padded_width(map(len, items))
    item = np.zeros((len(items), width), np.int64)
    mask = np.zeros((len(items), width), np.bool_)
    for row, indices in enumerate(items):
        if (indices < 0).any():
            raise DataError(
                f"Query row {row} holds an item outside the catalogue (index -1).",
                remedy="Drop such items and count them before building a query.",
            )
        item[row, : len(indices)] = indices
        mask[row, : len(indices)] = True
    query = {"item": torch.from_numpy(item), "mask": torch.from_numpy(mask)}
    if values is not None:
        value = np.zeros(item.shape, np.float32)
        value[mask] = np.nan_to_num(np.concatenate(values), nan=0.0)
        query["value"] = torch.from_numpy(value)
    return query


def reaches(value: NDArray[np.float32], min_value: float | None) -> NDArray[np.bool_]:
    """Which events count by their value: those without one (NaN) do."""
    return np.ones(len(value), np.bool_) if min_value is None else ~(value < min_value)


def pad_labelled(queries: Sequence[Labelled], *, width: int) -> Examples:
    """`item`, `value`, `click`, `conversion` and `mask`, each `[T, width]`."""
    lengths = np.array([len(query) for query in queries], np.int64)
    mask = np.arange(width) < lengths[:, None]
    padded: Examples = {"mask": torch.from_numpy(mask)}
    dtypes = {"item": np.int64, "value": np.float32, "click": np.float32, "conversion": np.float32}
    for name, dtype in dtypes.items():
        rows = np.zeros(mask.shape, dtype)
        rows[mask] = np.concatenate([getattr(query, name) for query in queries])
        padded[name] = torch.from_numpy(rows)
    return padded


def pad_asked(queries: Sequence[Asked]) -> Examples:
    """`now_ms` float64 and `mask`, `[T, R]`, and `label` `[T, R, C]`."""
    width = padded_width(map(len, queries))
    mask = np.arange(width) < np.array([len(query) for query in queries])[:, None]
    now_ms = np.zeros(mask.shape)
    now_ms[mask] = np.concatenate([query.now_ms for query in queries])
    label = np.zeros((*mask.shape, queries[0].label.shape[1]), np.float32)
    label[mask] = np.concatenate([query.label for query in queries])
    padded = {"now_ms": now_ms, "mask": mask, "label": label}
    return {name: torch.from_numpy(value) for name, value in padded.items()}


def distinct_items(history: History, event_types: Sequence[int]) -> NDArray[np.int64]:
    """The distinct catalogue items with an event of one of the types, ascending: what a user adds
    to the tables that are counted on training users."""
    counts = (history.item >= 0) & np.isin(history.event_type, event_types)
    return np.unique(history.item[counts])


def last_places(history: History, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the user's last event on each of `items` happened, -1 where that is not known."""
    order = np.lexsort((history.timestamp_ms, history.item))
    last = np.searchsorted(history.item[order], items, side="right") - 1
    return history.place[order][last]


def placed_items(
    histories: Sequence[History], event_types: Sequence[int]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Of each user the `distinct_items`, and where the last event on each happened."""
    items = [distinct_items(history, event_types) for history in histories]
    return items, [last_places(h, own) for h, own in zip(histories, items, strict=True)]


def with_own_items(
    support: Examples, histories: Sequence[History], event_types: Sequence[int], view: SupportView
) -> Examples:
    """`support` of training users, and what the model's tables count them with: items, and the
    place of each.

    A model can so take a user out of what it is judged with; nobody else has these fields.

    Args:
        histories: the users' whole histories.
        event_types: those that tables are counted on.
    """
    own, places = placed_items(histories, event_types)
    rows = pad_items(own)
    support = {**support, "own_item": rows["item"], "own_mask": rows["mask"]}
    if view.places:
        padded = np.zeros(rows["mask"].shape, np.int64)
        padded[rows["mask"].numpy()] = np.concatenate(places)
        support["own_place"] = torch.from_numpy(padded)
    return support
