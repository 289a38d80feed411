"""Joins what the passes of `prepare` left in parts: task buckets, tables, refused rows."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raymeta.data.cleaning import REJECTED_SCHEMA
from raymeta.data.sources.base import FeatureTable

ITEMS_FILE = "items.parquet"
USERS_FILE = "users.parquet"

_ROW_GROUP_EVENTS = 1 << 20
"""Events in a row group of a task file: what a reader decodes at once."""


def write_buckets(shards: Path, tasks_dir: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Writes `bucket-BB.parquet` of each bucket from the parts of all partitions.

    Returns:
        For each file its name, users, events, and the range of events a user.
    """
    tasks_dir.mkdir()
    parts: dict[str, list[Path]] = {}
    for path in sorted(shards.glob("tasks-*.arrow")):
        parts.setdefault(path.name.split("-")[1], []).append(path)
    return [_join_bucket(number, parts[number], tasks_dir, schema) for number in sorted(parts)]


def write_items(items: FeatureTable | None, item_ids: pa.Array, folder: Path) -> dict[str, int]:
    """Writes `items.parquet`: the item table, and a row with nothing but the id for the rest.

    Args:
        items: the log's item table, if it has one.
        item_ids: all items of the log, sorted.

    Returns:
        Counts for the manifest.
    """
    table = pa.table({"item_id": item_ids}) if items is None else items.table
    known = pc.is_in(item_ids, value_set=table.column("item_id").combine_chunks())
    lacking = item_ids.filter(pc.invert(known))
    if len(lacking):
        table = pa.concat_tables([table, pa.table({"item_id": lacking})], promote_options="default")
    write_table(table.sort_by("item_id"), folder / ITEMS_FILE)
    without = len(item_ids) if items is None else len(lacking)
    return {"items": table.num_rows, "items_without_features": without}


def write_users(users: FeatureTable | None, folder: Path) -> dict[str, int]:
    """Writes `users.parquet`: the user table, or one without rows where the log has none."""
    table = pa.table({"user_id": pa.array([], pa.string())}) if users is None else users.table
    write_table(table.sort_by("user_id"), folder / USERS_FILE)
    return {"users_with_features": table.num_rows}


def write_rejected(tables: Sequence[pa.Table], shards: Path, path: Path) -> None:
    """Streams all refused rows into one file: of the units, duplicates, then of the tables."""
    with pq.ParquetWriter(path, REJECTED_SCHEMA, compression="zstd") as writer:
        for part in sorted(shards.glob("rejected-*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches():
                writer.write_batch(batch)
        for table in tables:
            writer.write_table(table)


def write_table(table: pa.Table, path: Path) -> None:
    """A whole table as one file."""
    pq.write_table(table, path, compression="zstd")


def remove(folder: Path) -> None:
    """Deletes a folder of intermediate files."""
    shutil.rmtree(folder)


def _join_bucket(
    number: str, parts: Sequence[Path], tasks_dir: Path, schema: pa.Schema
) -> dict[str, Any]:
    name = f"bucket-{number}.parquet"
    num_users = num_events = 0
    shortest, longest = None, 0
    waiting: list[pa.Table] = []
    with ExitStack() as stack:
        writer = stack.enter_context(pq.ParquetWriter(tasks_dir / name, schema, compression="zstd"))
        for path in parts:
            table = pa.ipc.open_file(pa.OSFile(str(path))).read_all()
            lengths = pc.list_value_length(table.column("item"))
            low, high = pc.min_max(lengths).as_py().values()
            shortest = low if shortest is None else min(shortest, low)
            longest = max(longest, high)
            num_users += table.num_rows
            num_events += pc.sum(lengths).as_py()
            waiting.append(table)
            if sum(len(t.column("item").combine_chunks().values) for t in waiting) >= (
                _ROW_GROUP_EVENTS
            ):
                _write_group(writer, waiting)
        _write_group(writer, waiting)
    return {
        "file": name,
        "num_users": num_users,
        "num_events": num_events,
        "min_events": shortest or 0,
        "max_events": longest,
    }


def _write_group(writer: pq.ParquetWriter, waiting: list[pa.Table]) -> None:
    """One row group of the tables that wait, and forgets them."""
    if waiting:
        writer.write_table(pa.concat_tables(waiting).combine_chunks())
        waiting.clear()
