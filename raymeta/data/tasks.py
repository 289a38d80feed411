"""The second pass: a partition's events become stored events and one row a user.

Rows go into buckets by history length, so that a reader pads little. Split, support size and
scenario are applied when tasks are read, not here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raymeta.data.cleaning import REJECTED_SCHEMA, rejected_rows
from raymeta.data.event_order import Codes, OrderedEvents, order_events
from raymeta.data.partitions import LINE_COLUMN, UNIT_COLUMN, read_shards

TASKS_FORMAT_VERSION = 1

BUCKET_MAX_EVENTS = (16, 64, 256, 1024)
"""Upper bounds of the buckets; the last bucket has the rest."""

DUPLICATE = "duplicate"

_LISTS: dict[str, pa.DataType] = {
    "query": pa.string(),
    "ranking_id": pa.string(),
    "position": pa.int32(),
    "propensity": pa.float32(),
    "place": pa.string(),
}


@dataclass(frozen=True)
class PartitionSummary:
    """What a partition held once it was ordered.

    Attributes:
        num_users: users in it.
        num_events: events, duplicates dropped.
        num_duplicates: rows dropped.
        event_types: events by type.
        events_per_user: users by number of events.
        visits_per_user: users by number of visits.
        first_ms, last_ms: span of the timestamps.
    """

    num_users: int
    num_events: int
    num_duplicates: int
    event_types: Mapping[str, int]
    events_per_user: Mapping[int, int]
    visits_per_user: Mapping[int, int]
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class TaskLayout:
    """What all partitions of a data set share.

    Attributes:
        item_ids: text, sorted; `item` indexes it.
        event_types: text, sorted; `event_type` indexes it.
        optional: the optional event columns of the log.
        unit_names: the file of each unit, for `rejected.parquet`.
        visit_gap_ms: a longer pause starts a visit where no visit id is known.
    """

    item_ids: pa.Array
    event_types: pa.Array
    optional: tuple[str, ...]
    unit_names: tuple[str, ...]
    visit_gap_ms: int


def task_schema(optional: tuple[str, ...]) -> pa.Schema:
    """The columns of a task file for a log with these optional columns."""
    fields = [
        ("user_id", pa.string()),
        ("num_visits", pa.int32()),
        ("item", pa.list_(pa.int32())),
        ("event_type", pa.list_(pa.int8())),
        ("timestamp_ms", pa.list_(pa.int64())),
        ("value", pa.list_(pa.float32())),
        ("visit", pa.list_(pa.int32())),
        *((name, pa.list_(kind)) for name, kind in _LISTS.items() if name in optional),
    ]
    return pa.schema(fields)


def finish_partition(
    partition: int, *, layout: TaskLayout, shards: Path, events_dir: Path
) -> PartitionSummary | None:
    """Orders one partition and writes its events, its task rows by bucket and its duplicates.

    Writes `part-PPPPP.parquet` into `events_dir`; `tasks-BB-PPPPP.arrow` and
    `rejected-duplicates-PPPPP.parquet` into `shards`, which `prepare` joins. None where the
    partition is empty.
    """
    table = read_shards(shards, partition)
    if table is None:
        return None
    ordered = order_events(
        table,
        item_ids=layout.item_ids,
        event_types=layout.event_types,
        visit_gap_ms=layout.visit_gap_ms,
    )
    del table
    stored = ordered.table.drop_columns([UNIT_COLUMN, LINE_COLUMN])
    pq.write_table(stored, events_dir / f"part-{partition:05d}.parquet", compression="zstd")
    _write_duplicates(ordered.duplicates, layout, shards / f"rejected-dup-{partition:05d}.parquet")
    rows = task_rows(ordered, layout)
    lengths = np.diff(ordered.user_start)
    bucket = np.searchsorted(BUCKET_MAX_EVENTS, lengths)
    for number in np.unique(bucket).tolist():
        path = shards / f"tasks-{number:02d}-{partition:05d}.arrow"
        with pa.ipc.new_file(str(path), rows.schema) as writer:
            writer.write_table(rows.filter(pa.array(bucket == number)))
    millis = ordered.table.column("timestamp").cast(pa.int64())
    types = np.bincount(ordered.event_type, minlength=len(layout.event_types))
    return PartitionSummary(
        num_users=len(lengths),
        num_events=stored.num_rows,
        num_duplicates=ordered.duplicates.num_rows,
        event_types=dict(zip(layout.event_types.to_pylist(), types.tolist(), strict=True)),
        events_per_user=Counter(lengths.tolist()),
        visits_per_user=Counter(rows.column("num_visits").to_pylist()),
        first_ms=pc.min(millis).as_py(),
        last_ms=pc.max(millis).as_py(),
    )


def task_rows(ordered: OrderedEvents, layout: TaskLayout) -> pa.Table:
    """One row a user, in the layout of `task_schema`."""
    schema = task_schema(layout.optional)
    table, starts = ordered.table, ordered.user_start
    flat: dict[str, pa.Array | pa.ChunkedArray | Codes] = {
        "item": ordered.item,
        "event_type": ordered.event_type,
        "timestamp_ms": table.column("timestamp").cast(pa.int64()),
        "value": _values(table),
        "visit": ordered.visit,
        **{name: table.column(name) for name in schema.names if name in _LISTS},
    }
    columns = {
        "user_id": table.column("user_id").take(pa.array(starts[:-1])),
        "num_visits": pa.array(np.maximum.reduceat(ordered.visit, starts[:-1]) + 1, pa.int32()),
        **{
            name: _lists(values, starts, schema.field(name).type.value_type)
            for name, values in flat.items()
        },
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _lists(
    values: pa.Array | pa.ChunkedArray | Codes, starts: Codes, kind: pa.DataType
) -> pa.ListArray:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), array.cast(kind, safe=False))


def _values(table: pa.Table) -> pa.Array | pa.ChunkedArray:
    if "value" not in table.column_names:
        return pa.array(np.full(table.num_rows, np.nan, np.float32))
    return pc.fill_null(table.column("value"), float("nan"))


def _write_duplicates(rows: pa.Table, layout: TaskLayout, path: Path) -> None:
    if rows.num_rows == 0:
        return
    line = np.asarray(rows.column(LINE_COLUMN).to_numpy(), np.int64)
    refused = rejected_rows(
        rows.drop_columns([UNIT_COLUMN, LINE_COLUMN]),
        line,
        pa.repeat(pa.scalar(DUPLICATE), rows.num_rows),
        np.ones(rows.num_rows, np.bool_),
        source="",
    )
    names = pa.array(layout.unit_names).take(rows.column(UNIT_COLUMN).combine_chunks())
    table = refused.set_column(0, REJECTED_SCHEMA.field("source"), names)
    pq.write_table(table, path)
