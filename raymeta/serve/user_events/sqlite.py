"""Events in an SQLite file: durable without a service, shared by the replicas of one machine.

Write-ahead log with `synchronous=FULL`, so an acknowledged event outlives the process and a power
cut. A write costs one flush of the disk, so appends that arrive while one is flushing are taken
together into the next transaction: a lone append never waits for company. All SQL runs in two
threads of the store, one that writes and one that reads, each with its own connection.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TypeVar

from raymeta.errors import RaymetaError, StoreError
from raymeta.serve.user_events.base import SCHEMA_VERSION, AppendResult, StoredEvent, UserRecord

APPLICATION_ID = 0x7261796D  # "raym", in the file's header: tells our files from other databases

MAX_GROUP = 256
"""Appends in one transaction at most: keeps the others' wait for the lock short."""

_EVENT_COLUMNS = ", ".join(field.name for field in fields(StoredEvent))

_SCHEMA = f"""
CREATE TABLE users (
    user_key INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    user_id TEXT NOT NULL,
    state_version INTEGER NOT NULL DEFAULT 0,
    num_events INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, user_id)
) STRICT;
CREATE TABLE events (
    user_key INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    value REAL,
    visit_id TEXT,
    query TEXT,
    ranking_id TEXT,
    position INTEGER,
    propensity REAL,
    PRIMARY KEY (user_key, timestamp_ms, item_id, event_type, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE taken_event_ids (
    user_key INTEGER NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (user_key, event_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen_items (
    user_key INTEGER NOT NULL, item_id TEXT NOT NULL, PRIMARY KEY (user_key, item_id)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

_FIND_USER = (
    "SELECT user_key, state_version, num_events FROM users WHERE tenant = ? AND user_id = ?"
)
_ORDER_DOWN = "timestamp_ms DESC, item_id DESC, event_type DESC, sequence DESC"

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Append:
    tenant: str
    user_id: str
    events: Sequence[StoredEvent]
    answer: Future[AppendResult]


class SqliteEventStore:
    """An `EventStore` in one file.

    Args:
        path: the database file; it and its folder are made where missing, readable by the owner.
        retained_events: how many events are kept a user, at least 1.
        busy_timeout_s: how long a write waits for another process's.

    Raises:
        StoreError: the file cannot be opened, is no event store, or has a schema of another
            version.
    """

    def __init__(
        self, path: str | Path, *, retained_events: int, busy_timeout_s: float = 5.0
    ) -> None:
        self._path = Path(path).absolute()
        self._retained_events = retained_events
        self._busy_timeout_s = busy_timeout_s
        self._closed = False
        self._closing = threading.Lock()
        _create_file(self._path)
        self._writing = self._open()
        self._reading = self._open()
        self._pending: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="event-writer", daemon=True)
        self._writer.start()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="event-reader")

    async def append(
        self, tenant: str, user_id: str, events: Sequence[StoredEvent]
    ) -> AppendResult:
        if not events:
            return AppendResult(await self.version(tenant, user_id), 0, 0)
        answer: Future[AppendResult] = Future()
        with self._closing:
            self._require_open()
            self._pending.put(_Append(tenant, user_id, tuple(events), answer))
        return await asyncio.wrap_future(answer)

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        return await self._in_reader(lambda: self._read(tenant, user_id))

    async def version(self, tenant: str, user_id: str) -> int:
        return await self._in_reader(lambda: self._user(tenant, user_id)[1])

    async def check(self) -> None:
        await self._in_reader(lambda: self._reading.execute("SELECT 1 FROM users LIMIT 1"))

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._pending.put(None)
        self._writer.join()
        self._reader.shutdown()
        self._writing.close()
        self._reading.close()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"The event store {self._path} is closed.", remedy="Open a new one.")

    # --- opening

    def _open(self) -> sqlite3.Connection:
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                return self._try_open()
            except sqlite3.Error as error:
                # switching to the write-ahead log does not wait for others that do the same
                if _is_busy(error) and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise StoreError(
                    f"The event store {self._path} cannot be opened: {error}.",
                    remedy="Give the path of a file that raymeta made, or of none.",
                ) from error

    def _try_open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions are written out below
            check_same_thread=False,  # opened here, then used by one thread alone
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            with _transaction(connection, "IMMEDIATE"):
                self._require_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_schema(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
            return
        if application == APPLICATION_ID:
            raise StoreError(
                f"The event store {self._path} has schema version {version}; this raymeta reads "
                f"version {SCHEMA_VERSION}.",
                remedy="Use the raymeta that wrote it, or give the path of a new file.",
            )
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise StoreError(
                f"{self._path} is a database of another program.",
                remedy="Give the path of a file that raymeta made, or of none.",
            )
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)

    # --- writing, in the writer's thread

    def _write(self) -> None:
        while (first := self._pending.get()) is not None:
            group = [first]
            with contextlib.suppress(queue.Empty):
                while len(group) < MAX_GROUP:
                    append = self._pending.get_nowait()
                    if append is None:
                        self._pending.put(None)
                        break
                    group.append(append)
            self._commit([a for a in group if a.answer.set_running_or_notify_cancel()])

    def _commit(self, group: Sequence[_Append]) -> None:
        try:
            with _transaction(self._writing, "IMMEDIATE"):
                results = [self._apply(append) for append in group]
        except Exception as error:
            if len(group) > 1:  # one that cannot be stored must not fail its neighbours
                for append in group:
                    self._commit([append])
                return
            for append in group:
                append.answer.set_exception(self._explain(error))
        else:
            for append, result in zip(group, results, strict=True):
                append.answer.set_result(result)

    def _apply(self, append: _Append) -> AppendResult:
        execute = self._writing.execute
        execute(
            "INSERT INTO users (tenant, user_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (append.tenant, append.user_id),
        )
        key, version, before = execute(
            _FIND_USER,
            (append.tenant, append.user_id),
        ).fetchone()
        count = before
        for event in append.events:
            taken = execute(
                "INSERT INTO taken_event_ids VALUES (?, ?) ON CONFLICT DO NOTHING",
                (key, event.event_id),
            )
            if taken.rowcount == 0:
                continue
            count += 1
            execute(
                f"INSERT INTO events (user_key, sequence, {_EVENT_COLUMNS}) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, count, *astuple(event)),
            )
            if event.marks_seen():
                execute(
                    "INSERT INTO seen_items VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (key, event.item_id),
                )
        if count > before:
            version += 1
            execute(
                "UPDATE users SET state_version = ?, num_events = ? WHERE user_key = ?",
                (version, count, key),
            )
        if count > self._retained_events:
            self._prune(key)
        return AppendResult(version, count - before, len(append.events) - (count - before))

    def _prune(self, key: int) -> None:
        columns = "user_key, timestamp_ms, item_id, event_type, sequence"
        self._writing.execute(
            f"DELETE FROM events WHERE ({columns}) IN (SELECT {columns} FROM events "
            f"WHERE user_key = ? ORDER BY {_ORDER_DOWN} LIMIT -1 OFFSET ?)",
            (key, self._retained_events),
        )

    # --- reading, in the reader's thread

    async def _in_reader(self, work: Callable[[], ResultT]) -> ResultT:
        with self._closing:
            self._require_open()
            answer = self._reader.submit(work)
        try:
            return await asyncio.wrap_future(answer)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _read(self, tenant: str, user_id: str) -> UserRecord:
        with _transaction(self._reading, "DEFERRED"):
            key, version, num_events = self._user(tenant, user_id)
            events = self._reading.execute(
                f"SELECT {_EVENT_COLUMNS} FROM events WHERE user_key = ? "
                f"ORDER BY {_ORDER_DOWN} LIMIT ?",
                (key, self._retained_events),
            ).fetchall()
            seen = self._reading.execute(
                "SELECT item_id FROM seen_items WHERE user_key = ?", (key,)
            ).fetchall()
        return UserRecord(
            state_version=version,
            num_events=num_events,
            events=tuple(StoredEvent(*row) for row in reversed(events)),
            seen_items=frozenset(item for (item,) in seen),
        )

    def _user(self, tenant: str, user_id: str) -> tuple[int, int, int]:
        """(key, version, events ever); a key that no row has where the user is unknown."""
        row: tuple[int, int, int] | None = self._reading.execute(
            _FIND_USER,
            (tenant, user_id),
        ).fetchone()
        return row or (-1, 0, 0)

    def _explain(self, error: BaseException) -> RaymetaError:
        if isinstance(error, RaymetaError):
            return error
        if isinstance(error, sqlite3.Error) and _is_busy(error):
            return StoreError(
                f"The event store was busy for more than {self._busy_timeout_s:g} s.",
                remedy="Send the request again; events with an event_id are never counted twice.",
            )
        return StoreError(f"The event store failed: {error}.", remedy="Send the request again.")


def _create_file(path: Path) -> None:
    """Makes the file before SQLite does, so that none but the owner can read who bought what."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"The event store {path} cannot be made: {error.strerror or error}.",
            remedy="Give the path of a file in a folder that can be written.",
        ) from error


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # extended codes carry the primary one in their low byte
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
