"""Reads a task folder: a row a user, the whole history; nothing of splits or support sizes.

The columns of all users lie end to end in flat arrays; a history is a view into them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
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


@dataclass(frozen=True)
class TaskDataset:
    """All users of a task folder, item indices into `item_ids`."""

    users: UserTasks
    item_ids: NDArray[np.str_]
    event_types: tuple[str, ...]
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, data_dir: str | Path) -> "TaskDataset":
        """Opens `DIR/tasks`; a folder without its manifest is not whole and is refused."""
        folder = Path(data_dir) / "tasks"
        manifest = _read_manifest(folder)
        tables = [pq.read_table(folder / b["file"], columns=_COLUMNS) for b in manifest["buckets"]]
        table = pa.concat_tables(tables)
        lists = {name: table[name].combine_chunks() for name in _COLUMNS[1:]}
        item = lists["item"]
        events = History(
            item=_flat(item, np.int64),
            event_type=_flat(lists["event_type"], np.int64),
            timestamp_ms=_flat(lists["timestamp_ms"], np.int64),
            value=_flat(lists["value"], np.float32),
            visit=_flat(lists["visit"], np.int64),
        )
        offsets = np.asarray(item.offsets).astype(np.int64)
        user_ids = np.asarray(table["user_id"].to_pylist(), np.str_)
        # bucketing by length is a matter of storage; by id, the order does not depend on it
        users = UserTasks(user_ids, offsets - offsets[0], events).take(np.argsort(user_ids))
        item_ids = pq.read_table(folder / "items.parquet", columns=["item_id"])["item_id"]
        return cls(
            users,
            np.asarray(item_ids.to_pylist(), np.str_),
            tuple(manifest["event_types"]),
            manifest,
        )

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


_COLUMNS = ["user_id", "item", "event_type", "timestamp_ms", "value", "visit"]


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
