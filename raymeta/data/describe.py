"""What a person wants to know of a data set: counts, span, activity, top items, refused rows.

Streams over the task files, so a log of any size can be described; how it is shown is left to the
command.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.data.dataset_dir import read_manifest
from raymeta.data.schema import load_feature_schema

_TITLE_COLUMNS = ("title", "name", "product_name", "item_name")


@dataclass(frozen=True)
class TopItem:
    """An item and how often it occurs in the log.

    Attributes:
        item_id: the shop's id.
        title: its title, or the id where the items have none.
        events: events with it.
        share: of all events.
    """

    item_id: str
    title: str
    events: int
    share: float


@dataclass(frozen=True)
class Rejected:
    """Rows refused for one reason, with the first of them."""

    reason: str
    rows: int
    example_source: str
    example_line: int
    example_row: str


@dataclass(frozen=True)
class Description:
    """All of it.

    Attributes:
        path: the data set.
        source: where it came from.
        notes: what must stand beside results.
        counts: events, users, visits, items, refused rows, and more.
        first, last: ISO 8601, UTC.
        event_types: events by type.
        events_per_user, visits_per_user: users in ranges of powers of two.
        median_events, median_visits: of a user.
        top_items: most frequent first.
        top_event_type: which events `top_items` counts.
        rejected: by reason, most frequent first.
        item_columns, user_columns: feature columns and their kinds.
        visit_rule: how events were grouped into visits.
    """

    path: str
    source: str
    notes: Sequence[str]
    counts: Mapping[str, int]
    first: str
    last: str
    event_types: Mapping[str, int]
    events_per_user: Sequence[Mapping[str, int]]
    visits_per_user: Sequence[Mapping[str, int]]
    median_events: float
    median_visits: float
    top_items: Sequence[TopItem]
    top_event_type: str
    rejected: Sequence[Rejected]
    item_columns: Mapping[str, str]
    user_columns: Mapping[str, str]
    visit_rule: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def describe(data_dir: str | Path, *, num_top: int = 10) -> Description:
    """Describes a data set that `prepare` wrote.

    Raises:
        DataError: the folder holds none.
    """
    folder = Path(data_dir)
    manifest = read_manifest(folder)
    tasks = _read_tasks_manifest(folder)
    schema = load_feature_schema(folder)
    top_type = _telling_type(manifest["event_types"])
    item_counts, lengths, visits = _stream_tasks(folder, tasks, top_type)
    return Description(
        path=str(data_dir),
        source=manifest["source"],
        notes=manifest["notes"],
        counts=manifest["counts"],
        first=_iso(manifest["span"]["first_ms"]),
        last=_iso(manifest["span"]["last_ms"]),
        event_types=manifest["event_types"],
        events_per_user=manifest["events_per_user"],
        visits_per_user=manifest["visits_per_user"],
        median_events=float(np.median(lengths)),
        median_visits=float(np.median(visits)),
        top_items=_top_items(folder, item_counts, num_top),
        top_event_type=top_type,
        rejected=_rejected(folder, manifest["rejected"]),
        item_columns={name: str(kind) for name, kind in schema.items.items()},
        user_columns={name: str(kind) for name, kind in schema.users.items()},
        visit_rule=manifest["visit_rule"],
    )


def _read_tasks_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the task files of a data set."""
    text = (folder / "tasks" / "manifest.json").read_text(encoding="utf-8")
    tasks: dict[str, Any] = json.loads(text)
    return tasks


def _telling_type(event_types: Mapping[str, int]) -> str:
    """The type that says most about what people like, of those in the log."""
    for name in ("purchase", "rating", "cart", "click", "view"):
        if event_types.get(name):
            return name
    return max(event_types, key=lambda name: event_types[name])


def _stream_tasks(
    folder: Path, tasks: Mapping[str, Any], event_type: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Events of each item of one type, and events and visits of each user."""
    wanted = tasks["event_types"].index(event_type)
    counts = np.zeros(tasks["num_items"], np.int64)
    lengths, visits = [], []
    for bucket in tasks["buckets"]:
        file = pq.ParquetFile(folder / "tasks" / bucket["file"])
        for batch in file.iter_batches(4096, columns=["item", "event_type", "num_visits"]):
            item = batch.column("item").flatten().to_numpy()
            kind = batch.column("event_type").flatten().to_numpy()
            chosen = item[(kind == wanted) & (item >= 0)]
            counts += np.bincount(chosen, minlength=len(counts))
            lengths.append(np.diff(batch.column("item").offsets.to_numpy()))
            visits.append(batch.column("num_visits").to_numpy())
    return counts, np.concatenate(lengths), np.concatenate(visits)


def _top_items(folder: Path, counts: NDArray[np.int64], num_top: int) -> list[TopItem]:
    order = np.argsort(-counts, kind="stable")[:num_top]
    order = order[counts[order] > 0]
    ids = pq.read_table(folder / "tasks" / "items.parquet").column("item_id")
    chosen = ids.take(pa.array(order)).to_pylist()
    items = pq.ParquetFile(folder / "items.parquet")
    title_column = next((c for c in _TITLE_COLUMNS if c in items.schema_arrow.names), None)
    titles: dict[str, str] = {}
    if title_column is not None:
        table = items.read(columns=["item_id", title_column])
        rows = table.filter(pc.is_in(table.column("item_id"), pa.array(chosen))).to_pylist()
        titles = {row["item_id"]: row[title_column] for row in rows if row[title_column]}
    total = max(1, int(counts.sum()))
    return [
        TopItem(item_id, titles.get(item_id, item_id), int(counts[i]), float(counts[i] / total))
        for item_id, i in zip(chosen, order.tolist(), strict=True)
    ]


def _rejected(folder: Path, counts: Mapping[str, int]) -> list[Rejected]:
    """Every reason with its first row; reads no further than to the last new reason."""
    first: dict[str, Mapping[str, Any]] = {}
    file = pq.ParquetFile(folder / "rejected.parquet")
    for batch in file.iter_batches(65_536):
        if len(first) == len(counts):
            break
        reasons = batch.column("reason").dictionary_encode()
        _, rows = np.unique(reasons.indices.to_numpy(), return_index=True)
        for row in batch.take(pa.array(rows)).to_pylist():
            first.setdefault(row["reason"], row)
    return [
        Rejected(
            reason=reason,
            rows=rows,
            example_source=first[reason]["source"],
            example_line=first[reason]["line"],
            example_row=first[reason]["row"],
        )
        for reason, rows in counts.items()
    ]


def _iso(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
