"""The first pass over a log: every unit is read, cleaned and dealt to partitions by user.

Memory is bounded by a block: a unit's rows go straight to one Arrow file a partition, so that the
second pass (`tasks`) finds all events of a user together in something that fits. A unit writes
only files of its own name and is safe to run again, in any process.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.data.cleaning import (
    REJECT_REASON,
    REJECTED_SCHEMA,
    CleanBlock,
    CleaningRules,
    RawBlock,
    clean_block,
)
from raymeta.data.schema import event_fields
from raymeta.data.sources.base import EventUnit
from raymeta.errors import SchemaError

ROWS_PER_PARTITION = 400_000
"""Sorted in memory at once; with strings about a hundred megabytes at its peak."""

MAX_PARTITIONS = 512
"""Each is an open file while a unit is dealt; systems commonly allow 1,024."""

UNIT_COLUMN, LINE_COLUMN = "_unit", "_line"


@dataclass(frozen=True)
class UnitSummary:
    """What a unit held.

    Attributes:
        name: its file.
        num_rows: rows read.
        rejected: refused rows by reason.
        event_types: accepted events by type.
    """

    name: str
    num_rows: int
    rejected: Mapping[str, int]
    event_types: Mapping[str, int]


def num_partitions_for(num_rows: int) -> int:
    """How many partitions keep each near `ROWS_PER_PARTITION`."""
    return max(1, min(MAX_PARTITIONS, -(-num_rows // ROWS_PER_PARTITION)))


def shard_schema(rules: CleaningRules) -> pa.Schema:
    """An event and where it was read."""
    fields = event_fields(rules.optional)
    return fields.append(pa.field(UNIT_COLUMN, pa.int32())).append(
        pa.field(LINE_COLUMN, pa.int64())
    )


def deal_unit(
    unit: EventUnit,
    index: int,
    *,
    rules: CleaningRules,
    num_partitions: int,
    folder: Path,
    on_rows: Callable[[int], None] = lambda _: None,
) -> UnitSummary:
    """Reads and cleans one unit and appends each event to the shard of its user's partition.

    Writes `shard-PPPPP-UUUUU.arrow` for each partition that got events, the unit's item ids and
    its refused rows, all into `folder`.

    Raises:
        SchemaError: the unit is a wrong file: no row of its first block can be used, all for one
            and the same reason.
    """
    types: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    items = pa.array([], pa.string())
    num_rows = 0
    with ExitStack() as open_files:
        shards = _ShardWriters(folder, index, shard_schema(rules), open_files)
        refused = open_files.enter_context(
            pq.ParquetWriter(folder / f"rejected-{index:05d}.parquet", REJECTED_SCHEMA)
        )
        for block in unit.blocks():
            clean = clean_block(block, rules, source=unit.name)
            if num_rows == 0:
                _refuse_wrong_file(block, clean, unit.name, rules)
            num_rows += block.table.num_rows + len(block.malformed)
            types.update(_value_counts(clean.events.column("event_type")))
            rejected.update(_value_counts(clean.rejected.column("reason")))
            items = pc.unique(
                pa.concat_arrays([items, pc.unique(clean.events.column("item_id")).drop_null()])
            )
            if clean.rejected.num_rows:
                refused.write_table(clean.rejected)
            shards.deal(clean, num_partitions)
            on_rows(block.table.num_rows)
    pq.write_table(pa.table({"item_id": items}), folder / f"items-{index:05d}.parquet")
    return UnitSummary(unit.name, num_rows, dict(rejected), dict(types))


def read_shards(folder: Path, partition: int) -> pa.Table | None:
    """All events of a partition, in the order they were read; None where it has none."""
    files = sorted(folder.glob(f"shard-{partition:05d}-*.arrow"))
    if not files:
        return None
    return pa.concat_tables([pa.ipc.open_file(pa.OSFile(str(f))).read_all() for f in files])


def read_item_ids(folder: Path) -> pa.Array:
    """The item ids of all units, sorted: the log's vocabulary."""
    found = pa.array([], pa.string())
    for file in sorted(folder.glob("items-*.parquet")):
        ids = pq.read_table(file).column("item_id").combine_chunks()
        found = pc.unique(pa.concat_arrays([found, ids]))
    return found.take(pc.sort_indices(found))


def partition_of(user_id: pa.ChunkedArray, num_partitions: int) -> NDArray[np.int16]:
    """The partition of each user id: a hash of the id alone."""
    encoded = user_id.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    hashes = pd.util.hash_array(distinct, categorize=False)
    return (hashes % np.uint64(num_partitions)).astype(np.int16)[encoded.indices.to_numpy()]


class _ShardWriters:
    """One Arrow file a partition, opened when its first event comes."""

    def __init__(self, folder: Path, unit: int, schema: pa.Schema, open_files: ExitStack) -> None:
        self._folder = folder
        self._unit = unit
        self._schema = schema
        self._open_files = open_files
        self._writers: dict[int, pa.RecordBatchFileWriter] = {}

    def deal(self, clean: CleanBlock, num_partitions: int) -> None:
        if clean.events.num_rows == 0:
            return
        unit = pa.repeat(pa.scalar(self._unit, pa.int32()), clean.events.num_rows)
        table = clean.events.append_column(UNIT_COLUMN, unit)
        table = table.append_column(LINE_COLUMN, pa.array(clean.line))
        partition = partition_of(table.column("user_id"), num_partitions)
        order = np.argsort(partition, kind="stable")
        table = table.take(pa.array(order)).combine_chunks()
        ends = np.searchsorted(partition[order], np.arange(num_partitions), side="right")
        start = 0
        for number, end in enumerate(ends.tolist()):
            if end > start:
                self._writer(number).write_table(table.slice(start, end - start))
            start = end

    def _writer(self, partition: int) -> pa.RecordBatchFileWriter:
        if partition not in self._writers:
            path = self._folder / f"shard-{partition:05d}-{self._unit:05d}.arrow"
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            writer = pa.ipc.new_file(str(path), self._schema, options=options)
            self._writers[partition] = self._open_files.enter_context(writer)
        return self._writers[partition]


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column)
    return dict(
        zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    )


_REMEDIES = {
    "timestamp": "Give Unix seconds, milliseconds or ISO 8601, or set timestamp_format.",
    "event type": "List the shop's types under event_types, or map them by rename_event_types.",
}


def _refuse_wrong_file(
    block: RawBlock, clean: CleanBlock, source: str, rules: CleaningRules
) -> None:
    """One bad row is counted; a file in which nothing fits is not the file that was meant."""
    reasons = set(clean.rejected.column("reason").to_pylist()) if not len(clean.events) else set()
    if len(reasons) != 1 or REJECT_REASON in block.table.column_names:
        return
    reason = reasons.pop()
    name = reason.split()[0] if not reason.startswith("event type") else "event_type"
    theirs = rules.column_names.get(name, name)
    remedies = [text for start, text in _REMEDIES.items() if reason.startswith(start)]
    row = clean.rejected.column("row")[0].as_py()
    value = next((part for part in row.split(" | ") if part.startswith(f"{name}=")), row)
    raise SchemaError(
        f"{source}: none of the first {clean.rejected.num_rows} rows can be used: {reason} "
        f"(column {theirs!r}, first value {value.partition('=')[2]!r}).",
        remedy=" ".join([*remedies, "Check which column is mapped to which name in schema.yaml."]),
    )
