"""From a log to a data set: clean and deal every unit, order every partition, manifest last.

    pass 1   a unit:       read a block, clean it, deal its events to partitions by user
    pass 2   a partition:  order its events, drop duplicates, write events and task rows
    join     the parts of one bucket become one file; tables, hashes and manifests are written

Memory is bounded by a block and a partition, not by the log. The passes are maps over independent
pieces of work: `run_in_process` does them one after the other, `pipeline.RayRunner` on a cluster,
with the same functions and byte for byte the same events and tasks.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from raymeta.data import assemble
from raymeta.data.dataset_dir import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    file_hashes,
    manifest_text,
    new_folder,
    refuse_taken,
    text_sha256,
)
from raymeta.data.partitions import UnitSummary, deal_unit, num_partitions_for, read_item_ids
from raymeta.data.schema import FeatureSchema, dump_schema
from raymeta.data.sources.base import Log, Source
from raymeta.data.tasks import (
    DUPLICATE,
    TASKS_FORMAT_VERSION,
    PartitionSummary,
    TaskLayout,
    finish_partition,
    task_schema,
)
from raymeta.errors import SchemaError

DEFAULT_VISIT_GAP_MINUTES = 30

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class Runner(Protocol):
    """How independent pieces of work are run."""

    def __call__(
        self, work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT]
    ) -> Iterable[ResultT]:
        """`work` of every task, in the order of `tasks`."""
        ...


def run_in_process(work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT]) -> Iterator[ResultT]:
    """One after the other, here."""
    return map(work, tasks)


Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and how much there is."""


def _no_progress(_stage: str, _done: int, _total: int) -> None:
    """For callers who do not watch."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote.

    Attributes:
        path: the data set.
        manifest: its manifest.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)


def prepare(
    source: Source,
    out: str | Path,
    *,
    overwrite: bool = False,
    visit_gap_minutes: float = DEFAULT_VISIT_GAP_MINUTES,
    runner: Runner = run_in_process,
    progress: Progress = _no_progress,
) -> Prepared:
    """Makes a data set of a log: events, items, users, tasks and what was refused.

    Args:
        source: where the log comes from.
        out: the folder to make; it is whole or absent afterwards.
        overwrite: replace a data set that stands there.
        visit_gap_minutes: where the log has no visit ids, a longer pause starts a new visit.
        runner: runs the two passes.
        progress: is told how far the work is.

    Raises:
        SchemaError: a file is not what it should be, or no event of the log can be used.
        DataError: `out` holds something that must not be lost.
    """
    out = Path(out)
    refuse_taken(out, overwrite=overwrite)  # before minutes of reading, not after
    log = source.open()
    with new_folder(out, overwrite=overwrite) as folder:
        manifest = _write(log, folder, visit_gap_minutes, runner, progress)
    return Prepared(path=out, manifest=manifest)


def _write(
    log: Log, folder: Path, visit_gap_minutes: float, runner: Runner, progress: Progress
) -> dict[str, Any]:
    shards, events_dir = folder / "shards", folder / "events"
    shards.mkdir()
    events_dir.mkdir()
    units, num_partitions = _deal(log, shards, runner, progress)
    layout = TaskLayout(
        item_ids=read_item_ids(shards),
        event_types=pa.array(sorted({name for unit in units for name in unit.event_types})),
        optional=log.rules.optional,
        unit_names=tuple(unit.name for unit in units),
        visit_gap_ms=round(visit_gap_minutes * 60_000),
    )
    partitions = _finish(num_partitions, layout, shards, events_dir, runner, progress)
    progress("Writing tables", 0, 1)
    buckets = assemble.write_buckets(shards, folder / "tasks", task_schema(layout.optional))
    item_facts = assemble.write_items(log.items, layout.item_ids, folder)
    user_facts = assemble.write_users(log.users, folder)
    for name, table in log.extras.items():
        assemble.write_table(table, folder / f"{name}.parquet")
    tables = [t.rejected for t in (log.items, log.users) if t and t.rejected is not None]
    assemble.write_rejected(tables, shards, folder / "rejected.parquet")
    assemble.remove(shards)
    kinds = {
        "items": log.items.kinds if log.items else {},
        "users": log.users.kinds if log.users else {},
    }
    schema_text = dump_schema(FeatureSchema.model_validate(kinds))
    (folder / "schema.yaml").write_text(schema_text, encoding="utf-8")
    rejected = _rejected_counts(units, partitions, tables)
    counts = {
        **_counts(partitions),
        "items_in_log": len(layout.item_ids),
        **item_facts,
        **user_facts,
        "rows_read": sum(unit.num_rows for unit in units),
        "rejected": sum(rejected.values()),
    }
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "source": log.name,
        "origin": dict(log.origin),
        "notes": list(log.notes),
        "counts": counts,
        "rejected": rejected,
        "event_types": _sum(p.event_types for p in partitions),
        "event_columns": layout_columns(layout),
        "span": {
            "first_ms": min(p.first_ms for p in partitions),
            "last_ms": max(p.last_ms for p in partitions),
        },
        "visit_rule": _visit_rule(layout, visit_gap_minutes),
        "events_per_user": _histogram(p.events_per_user for p in partitions),
        "visits_per_user": _histogram(p.visits_per_user for p in partitions),
        "sha256": {},
    }
    _write_manifests(folder, manifest, buckets, layout)
    progress("Writing tables", 1, 1)
    return manifest


def _deal(
    log: Log, shards: Path, runner: Runner, progress: Progress
) -> tuple[list[UnitSummary], int]:
    num_partitions = num_partitions_for(sum(unit.num_rows_hint for unit in log.units))
    work = partial(_deal_one, rules=log.rules, num_partitions=num_partitions, folder=shards)
    units = []
    expected = sum(unit.num_rows_hint for unit in log.units)
    watch = _RowCounter(progress, expected)
    if runner is run_in_process:  # a callback does not reach other processes
        work.keywords["on_rows"] = watch.add
    progress("Reading", 0, expected)
    for summary in runner(work, list(enumerate(log.units))):
        units.append(summary)
        watch.settle(sum(unit.num_rows for unit in units))
    if not any(unit.event_types for unit in units):
        raise _nothing_usable(log, units)
    return units, num_partitions


def _finish(
    num_partitions: int,
    layout: TaskLayout,
    shards: Path,
    events_dir: Path,
    runner: Runner,
    progress: Progress,
) -> list[PartitionSummary]:
    work = partial(finish_partition, layout=layout, shards=shards, events_dir=events_dir)
    partitions = []
    progress("Ordering", 0, num_partitions)
    for done, summary in enumerate(runner(work, list(range(num_partitions))), start=1):
        if summary is not None:
            partitions.append(summary)
        progress("Ordering", done, num_partitions)
    return partitions


class _RowCounter:
    """Tells the progress of the first pass in rows, of which only a guess is known beforehand."""

    def __init__(self, progress: Progress, expected: int) -> None:
        self._progress = progress
        self._expected = expected
        self._done = 0

    def add(self, rows: int) -> None:
        self.settle(self._done + rows)

    def settle(self, done: int) -> None:
        self._done = done
        self._progress("Reading", done, max(done, self._expected))


def _deal_one(task: tuple[int, Any], **settings: Any) -> UnitSummary:
    index, unit = task
    return deal_unit(unit, index, **settings)


def _nothing_usable(log: Log, units: Sequence[UnitSummary]) -> SchemaError:
    rejected = _sum(unit.rejected for unit in units)
    rows = sum(unit.num_rows for unit in units)
    why = "; ".join(f"{count:,} {reason}" for reason, count in rejected.items())
    files = ", ".join(sorted({unit.name for unit in units})[:3])
    return SchemaError(
        f"{files or log.name}: no event can be used, of {rows:,} rows read"
        + (f" ({why})." if why else "."),
        remedy="Check that these are the event files, and how schema.yaml maps their columns."
        if rows
        else "Give a log with at least one event.",
    )


def layout_columns(layout: TaskLayout) -> list[str]:
    """The columns of the events table."""
    return ["user_id", "item_id", "event_type", "timestamp", *layout.optional]


def _counts(partitions: Sequence[PartitionSummary]) -> dict[str, int]:
    singles = sum(p.events_per_user.get(1, 0) for p in partitions)
    return {
        "events": sum(p.num_events for p in partitions),
        "users": sum(p.num_users for p in partitions),
        "visits": sum(v * n for p in partitions for v, n in p.visits_per_user.items()),
        "users_with_one_event": singles,
    }


def _rejected_counts(
    units: Sequence[UnitSummary],
    partitions: Sequence[PartitionSummary],
    tables: Sequence[pa.Table],
) -> dict[str, int]:
    counts = Counter(_sum(unit.rejected for unit in units))
    counts[DUPLICATE] += sum(p.num_duplicates for p in partitions)
    for table in tables:
        counts.update(table.column("reason").to_pylist())
    return {reason: n for reason, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if n}


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))


def _histogram(counts: Iterable[Mapping[int, int]]) -> list[dict[str, int]]:
    """Users by powers of two of the number of events (or visits): 1, 2-3, 4-7, ..."""
    buckets: Counter[int] = Counter()
    for each in counts:
        for number, users in each.items():
            buckets[number.bit_length() - 1] += users
    return [
        {"from": 1 << power, "to": (2 << power) - 1, "users": buckets[power]}
        for power in range(max(buckets, default=-1) + 1)
    ]


def _visit_rule(layout: TaskLayout, gap_minutes: float) -> str:
    gap = f"events at most {gap_minutes:g} minutes apart are one visit"
    return f"by visit_id; without one, {gap}" if "visit_id" in layout.optional else gap


def _write_manifests(
    folder: Path, manifest: dict[str, Any], buckets: Sequence[Mapping[str, Any]], layout: TaskLayout
) -> None:
    """The data set's manifest is hashed into that of its tasks, and written after it."""
    tasks_dir = folder / "tasks"
    assemble.write_table(pa.table({"item_id": layout.item_ids}), tasks_dir / assemble.ITEMS_FILE)
    manifest["sha256"] = file_hashes(folder)
    text = manifest_text(manifest)
    tasks = {
        "format_version": TASKS_FORMAT_VERSION,
        "num_users": manifest["counts"]["users"],
        "num_events": manifest["counts"]["events"],
        "num_items": len(layout.item_ids),
        "event_types": layout.event_types.to_pylist(),
        "columns": task_schema(layout.optional).names,
        "visit_rule": manifest["visit_rule"],
        "buckets": list(buckets),
        "dataset_sha256": text_sha256(text),
    }
    (tasks_dir / MANIFEST).write_text(manifest_text(tasks), encoding="utf-8")
    (folder / MANIFEST).write_text(text, encoding="utf-8")
