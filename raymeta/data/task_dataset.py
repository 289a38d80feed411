"""Reads a task folder: a row a user, the whole history; nothing of splits or support sizes.

The columns of all users lie end to end in flat arrays; a history is a view into them. What is read
is filtered a block at a time, so that memory is bounded by a block and what is kept of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.data.dataset_dir import versioned_manifest
from raymeta.data.events import History
from raymeta.data.features import EncodedFeatures
from raymeta.errors import DataError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class UserTasks(Sequence[History]):
    """Histories of some users, in the index space of whoever made it.

    Attributes:
        user_ids: `[U]` the shop's ids.
        offsets: `[U + 1]` where each user's events begin in `events`.
        events: all events end to end, each array `[E]`.
        features: what is known of each user beside events, `[U]` records; None if not read.
    """

    user_ids: NDArray[np.str_]
    offsets: NDArray[np.int64]
    events: History
    features: EncodedFeatures | None = None

    @property
    def histories(self) -> Sequence[History]:
        """The histories themselves, as a sequence."""
        return self

    def __len__(self) -> int:
        return len(self.user_ids)

    @overload
    def __getitem__(self, row: int) -> History: ...
    @overload
    def __getitem__(self, row: slice) -> "UserTasks": ...
    def __getitem__(self, row: int | slice) -> "History | UserTasks":
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        history = self.events.where(slice(self.offsets[row], self.offsets[row + 1]))
        return history if self.features is None else replace(history, features=self.features[row])

    def __iter__(self) -> Iterator[History]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: NDArray[np.int64]) -> "UserTasks":
        """The users at `rows`, in that order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        starts = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return UserTasks(
            self.user_ids[rows],
            offsets,
            self.events.where(starts + np.arange(offsets[-1])),
            None if self.features is None else self.features.take(rows),
        )

    def shard(self, rank: int, world_size: int) -> "UserTasks":
        """Every `world_size`-th user from `rank` on: disjoint over ranks, and together all."""
        return self.take(np.arange(rank, len(self), world_size))

    def keep_events(self, keep: NDArray[np.bool_]) -> "UserTasks":
        """The same users with only the events that the mask `[E]` selects."""
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        return replace(self, offsets=kept_before[self.offsets], events=self.events.where(keep))

    def user_of_event(self) -> NDArray[np.int64]:
        """The row of each event's user, `[E]`."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @classmethod
    def join(cls, parts: Sequence["UserTasks"]) -> "UserTasks":
        """The users of all parts, in ascending order of their ids; without features."""
        events = [History.empty(), *(part.events for part in parts)]
        lengths = np.concatenate([np.empty(0, np.int64), *(np.diff(p.offsets) for p in parts)])
        user_ids = np.concatenate([np.empty(0, np.str_), *(p.user_ids for p in parts)])
        joined = cls(
            user_ids,
            np.concatenate([[0], np.cumsum(lengths)]),
            History(
                item=np.concatenate([h.item for h in events]),
                event_type=np.concatenate([h.event_type for h in events]),
                timestamp_ms=np.concatenate([h.timestamp_ms for h in events]),
                value=np.concatenate([h.value for h in events]),
                visit=np.concatenate([h.visit for h in events]),
                place=np.concatenate([h.place for h in events]),
            ),
        )
        return joined.take(np.argsort(user_ids))


@dataclass(frozen=True)
class TaskDataset:
    """A task folder, item indices into `item_ids`; its users are read when they are asked for.

    Where `places` are known (`with_places`), so is the place of each event, as an index into them.
    """

    folder: Path
    item_ids: NDArray[np.str_]
    event_types: tuple[str, ...]
    manifest: Mapping[str, Any]
    places: tuple[str, ...] = ()

    @classmethod
    def open(cls, data_dir: str | Path) -> "TaskDataset":
        """Opens `DIR/tasks`; a folder without its manifest is not whole and is refused."""
        folder = Path(data_dir) / "tasks"
        manifest = _read_manifest(folder)
        item_ids = pq.read_table(folder / "items.parquet", columns=["item_id"])["item_id"]
        return cls(
            folder,
            np.asarray(item_ids.to_pylist(), np.str_),
            tuple(manifest["event_types"]),
            manifest,
        )

    def with_places(self) -> "TaskDataset":
        """The same with the place of each event.

        Raises:
            DataError: the log does not tell places.
        """
        if PLACE not in self.manifest["columns"]:
            raise DataError(
                f"{self.folder} does not tell at which place an event happened.",
                remedy="Set data.max_places: 0, or map a column to `place` and prepare again.",
            )
        found: set[str] = set()
        for table in self._row_groups([PLACE]):
            told = table[PLACE].combine_chunks().flatten().drop_null()
            found.update(pc.unique(told).to_pylist())
        return replace(self, places=tuple(sorted(found)))

    def blocks(self) -> Iterator[UserTasks]:
        """All users, a row group of a bucket at a time (about a million events)."""
        columns = [*_COLUMNS, PLACE] if self.places else _COLUMNS
        return (_block(table, self.places) for table in self._row_groups(columns))

    def _row_groups(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for bucket in self.manifest["buckets"]:
            with pq.ParquetFile(self.folder / bucket["file"]) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=list(columns))

    def read(self, keep: Callable[[UserTasks], UserTasks]) -> UserTasks:
        """What `keep` leaves of each block, users by id.

        Bucketing by length is a matter of storage: by id, the order does not depend on it.
        """
        return UserTasks.join([keep(block) for block in self.blocks()])

    @cached_property
    def users(self) -> UserTasks:
        """All users with all their events."""
        return self.read(lambda block: block)

    @property
    def user_ids(self) -> NDArray[np.str_]:
        """`[U]` ids in ascending order."""
        return self.users.user_ids

    def history(self, row: int) -> History:
        """All events of one user."""
        return self.users[row]

    def event_type_indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Indices of event types by name; an unknown name is refused."""
        unknown = [name for name in names if name not in self.event_types]
        if unknown:
            raise DataError(
                f"Event type {unknown[0]!r} does not occur in this data set.",
                remedy=f"It has: {', '.join(self.event_types)}.",
            )
        return tuple(self.event_types.index(name) for name in names)


PLACE = "place"
_COLUMNS = ["user_id", "item", "event_type", "timestamp_ms", "value", "visit"]


def _block(table: pa.Table, places: Sequence[str]) -> UserTasks:
    lists = {name: table[name].combine_chunks() for name in table.column_names[1:]}
    events = History(
        item=_flat(lists["item"], np.int64),
        event_type=_flat(lists["event_type"], np.int64),
        timestamp_ms=_flat(lists["timestamp_ms"], np.int64),
        value=_flat(lists["value"], np.float32),
        visit=_flat(lists["visit"], np.int64),
    )
    if PLACE in lists:
        code = pc.index_in(lists[PLACE].flatten(), value_set=pa.array(places, pa.string()))
        place = code.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        events = replace(events, place=place)
    offsets = np.asarray(lists["item"].offsets).astype(np.int64)
    return UserTasks(
        np.asarray(table["user_id"].to_pylist(), np.str_), offsets - offsets[0], events
    )


def _flat(column: pa.ListArray, dtype: type[np.generic]) -> NDArray[Any]:
    return column.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(
            f"{folder} holds no manifest.json: it is not a task folder, or was not finished.",
            remedy="Run `raymeta prepare ... --out DIR` and give that DIR.",
        )
    return versioned_manifest(path, version=FORMAT_VERSION)
