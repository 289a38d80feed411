"""Small log files to prepare, and the data set back as plain Python."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raymeta.data.schema import EventColumns, EventSchema, LogSchema, TableSchema

MAPPED = EventSchema(
    columns=EventColumns(
        user_id="user", item_id="sku", event_type="action", timestamp="ts", value="qty"
    ),
    rename_event_types={"buy": "purchase"},
)
HEADER = "user,sku,action,ts,qty"


def mapped_schema(**items: Any) -> LogSchema:
    """The schema of logs that `write_csv` writes."""
    return LogSchema(events=MAPPED, items=TableSchema(id="sku", **items))


def write_csv(path: Path, rows: Iterable[str], *, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def events_of(data_dir: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(data_dir / "events").to_pylist())


def rejected_of(data_dir: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(data_dir / "rejected.parquet").to_pylist())


def tasks_of(data_dir: Path) -> dict[str, Mapping[str, Any]]:
    """Task rows by user."""
    rows: dict[str, Mapping[str, Any]] = {}
    for path in sorted((data_dir / "tasks").glob("bucket-*.parquet")):
        rows |= {row["user_id"]: row for row in pq.read_table(path).to_pylist()}
    return rows
