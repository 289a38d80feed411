"""A partition's events in the one order that everything downstream relies on, without duplicates.

Order within a user: (timestamp, visit_id, item_id, event_type). Visits are numbered in the order
of (first timestamp, visit_id). Works on integer codes that sort as the ids do.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raymeta.data.partitions import LINE_COLUMN, UNIT_COLUMN

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class OrderedEvents:
    """Events grouped by user and ordered within each, exact duplicates apart.

    Attributes:
        table: the ordered events, duplicates removed.
        item: `[events]` index into the sorted item ids; -1 for a search without an item.
        event_type: `[events]` index into the event types.
        visit: `[events]` 0-based ordinal of the visit within its user.
        user_start: `[users + 1]` where each user's events begin; the last is the number of events.
        duplicates: the dropped rows, in the layout of `table`.
    """

    table: pa.Table
    item: Codes
    event_type: Codes
    visit: Codes
    user_start: Codes
    duplicates: pa.Table


def order_events(
    events: pa.Table, *, item_ids: pa.Array, event_types: pa.Array, visit_gap_ms: int
) -> OrderedEvents:
    """Sorts a partition, sets exact repeats apart and numbers the visits.

    Rows repeat each other where user, item, type, timestamp and visit agree.

    Args:
        events: in the layout of `partitions.shard_schema`.
        item_ids: the log's item ids, sorted.
        event_types: the log's event types, sorted.
        visit_gap_ms: where an event has no visit id, a pause longer than this starts a visit.
    """
    user = sorted_codes(events.column("user_id"))
    item = pc.index_in(events.column("item_id"), value_set=item_ids)
    kind = pc.index_in(events.column("event_type"), value_set=event_types)
    has_visits = "visit_id" in events.column_names
    keys = {
        "user": user,
        "timestamp": _integers(events.column("timestamp").cast(pa.int64())),
        "visit": sorted_codes(events.column("visit_id")) if has_visits else np.full_like(user, -1),
        "item": _integers(item.fill_null(-1)),
        "type": _integers(kind),
    }
    # where two rows agree in all of these they are duplicates, and the one read first is kept
    read = [_integers(events.column(LINE_COLUMN)), _integers(events.column(UNIT_COLUMN))]
    order = np.lexsort([*read, *reversed(keys.values())])
    keys = {name: key[order] for name, key in keys.items()}
    repeated = np.zeros(len(order), np.bool_)
    repeated[1:] = np.logical_and.reduce([key[1:] == key[:-1] for key in keys.values()])
    keys = {name: key[~repeated] for name, key in keys.items()}
    return OrderedEvents(
        table=events.take(pa.array(order[~repeated])),
        item=keys["item"],
        event_type=keys["type"],
        visit=_visit_ordinals(keys["user"], keys["timestamp"], keys["visit"], visit_gap_ms),
        user_start=_starts(keys["user"]),
        duplicates=events.take(pa.array(order[repeated])),
    )


def sorted_codes(text: pa.ChunkedArray) -> Codes:
    """Integers that sort as the texts do, -1 for null, which so comes first."""
    encoded = text.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary
    rank = np.empty(len(distinct), np.int64)
    rank[pc.sort_indices(distinct).to_numpy()] = np.arange(len(distinct))
    place = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.where(place >= 0, rank[place], -1) if len(distinct) else np.full(len(text), -1)


def _visit_ordinals(user: Codes, timestamp: Codes, visit: Codes, gap_ms: int) -> Codes:
    """Numbers the visits of rows that are sorted by (user, timestamp, visit)."""
    key = visit.copy()
    loose = np.flatnonzero(visit < 0)
    if len(loose):  # events without a visit id: sessions among themselves
        changed = np.ones(len(loose), np.bool_)
        changed[1:] = (np.diff(user[loose]) != 0) | (np.diff(timestamp[loose]) > gap_ms)
        key[loose] = visit.max(initial=-1) + np.cumsum(changed)
    pair = user * (key.max(initial=0) + 1) + key
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    # rows are in time order, so visits begin in the order of their first rows
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    ordinal = rank[inverse]
    starts = _starts(user)
    return ordinal - np.repeat(ordinal[starts[:-1]], np.diff(starts))


def _starts(user: Codes) -> Codes:
    changes = np.flatnonzero(np.diff(user)) + 1
    return np.concatenate([[0], changes, [len(user)]]) if len(user) else np.zeros(1, np.int64)


def _integers(column: pa.ChunkedArray) -> Codes:
    return np.asarray(column.to_numpy(), np.int64)
