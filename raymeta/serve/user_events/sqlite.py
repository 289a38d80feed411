"""Events in an SQLite file: durable without a service, shared by the replicas of one machine.

Write-ahead log with `synchronous=FULL`, so an acknowledged event outlives the process and a power
cut. Leaves threads and transactions to `engine`, statements to `sql_*`.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raymeta.errors import RaymetaError, StoreError
from raymeta.serve.user_events.base import SCHEMA_VERSION, Retention, id_digest
from raymeta.serve.user_events.engine import SqlEventStore
from raymeta.serve.user_events.sql_schema import PLACE_ADDED, Dialect, schema_statements

APPLICATION_ID = 0x7261796D  # "raym", in the file's header: tells our files from other databases

_DIALECT = Dialect(
    key="INTEGER PRIMARY KEY",
    integer="INTEGER",
    real="REAL",
    text="TEXT",
    blob="BLOB",
    strict=" STRICT",
    without_rowid=" STRICT, WITHOUT ROWID",
)


def open_sqlite(
    path: str | Path,
    *,
    retention: Retention,
    busy_timeout_s: float = 5.0,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> SqlEventStore:
    """An `EventStore` in one file.

    Args:
        path: the database file; it and its folder are made where missing, readable by the owner.
        retention: what bounds the store.
        busy_timeout_s: how long a change waits for another process's.
        now_ms: the clock that expiry is measured by.

    Raises:
        StoreError: the file cannot be opened, is no event store, or has a newer schema.
    """
    database = SqliteDatabase(Path(path).absolute(), busy_timeout_s=busy_timeout_s)
    return SqlEventStore(database, retention=retention, now_ms=now_ms)


class SqliteDatabase:
    """The file, for `engine`."""

    durable = True
    # more would only wait for one another: the interpreter's lock is held between page reads
    num_readers = 1
    answer_timeout_s = None

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s

    def connect(self) -> "SqliteConnection":
        _create_file(self._path)
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                return self._try_connect()
            except sqlite3.Error as error:
                # switching to the write-ahead log does not wait for others that do the same
                if _is_busy(error) and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise StoreError(
                    f"The event store {self._path} cannot be opened: {error}.",
                    remedy="Give the path of a file that raymeta made, or of none.",
                ) from error

    def breaks_connection(self, error: BaseException) -> bool:
        del error
        return False  # a file does not hang up

    def explain(self, error: BaseException) -> RaymetaError:
        if isinstance(error, RaymetaError):
            return error
        if isinstance(error, sqlite3.Error) and _is_busy(error):
            return StoreError(
                f"The event store was busy for more than {self._busy_timeout_s:g} s.",
                remedy="Send the request again; events with an event_id are never counted twice.",
            )
        return StoreError(f"The event store failed: {error}.", remedy="Send the request again.")

    def _try_connect(self) -> "SqliteConnection":
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions are written out
            check_same_thread=False,  # `engine` gives it to one thread at a time
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            opened = SqliteConnection(connection)
            with opened.writing():
                self._require_schema(connection)
        except BaseException:
            connection.close()
            raise
        return opened

    def _require_schema(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application, found) == (APPLICATION_ID, SCHEMA_VERSION):
            return
        if application == APPLICATION_ID and found in _MIGRATIONS:
            _MIGRATIONS[found](connection)
        elif application == APPLICATION_ID:
            raise StoreError(
                f"The event store {self._path} has schema version {found}; this raymeta reads "
                f"version {SCHEMA_VERSION} and older ones.",
                remedy="Use the raymeta that wrote it, or give the path of a new file.",
            )
        elif connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise StoreError(
                f"{self._path} is a database of another program.",
                remedy="Give the path of a file that raymeta made, or of none.",
            )
        else:
            for statement in schema_statements(_DIALECT):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


class SqliteConnection:
    """One connection and its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.raw = connection

    @contextlib.contextmanager
    def writing(self) -> Iterator["SqliteConnection"]:
        with self._transaction("IMMEDIATE"):
            yield self

    @contextlib.contextmanager
    def reading(self) -> Iterator["SqliteConnection"]:
        with self._transaction("DEFERRED"):
            yield self

    def all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.raw.execute(statement, values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        return self.raw.execute(statement, values).rowcount

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self.raw.executemany(statement, rows)

    def close(self) -> None:
        self.raw.close()

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self.raw.execute(f"BEGIN {kind}")
        try:
            yield
            self.raw.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.raw.execute("ROLLBACK")
            raise


def _migrate_from_1(connection: sqlite3.Connection) -> None:
    """Version 1 kept event ids as text and without their content, and no more than events."""
    now_ms = time.time_ns() // 1_000_000
    connection.create_function("id_digest", 1, id_digest, deterministic=True)
    old = ("users", "events", "taken_event_ids", "seen_items")
    for table in old:
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    for statement in schema_statements(_DIALECT):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO users (user_key, tenant, user_id, epoch_ms, touched_ms, state_version, "
        "num_events, arrivals) SELECT user_key, tenant, user_id, ?, ?, state_version, num_events, "
        "num_events FROM users_1",
        (now_ms, now_ms),
    )
    connection.execute("INSERT INTO events SELECT *, 1, NULL FROM events_1")
    connection.execute(
        "INSERT INTO taken_ids SELECT user_key, id_digest(event_id), NULL, ? "
        "FROM taken_event_ids_1",
        (now_ms,),
    )
    connection.execute("INSERT INTO seen_items SELECT * FROM seen_items_1")
    for table in old:
        connection.execute(f"DROP TABLE {table}_1")


def _migrate_from_2(connection: sqlite3.Connection) -> None:
    connection.execute(PLACE_ADDED)


_MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {
    1: _migrate_from_1,
    2: _migrate_from_2,
}
"""From which version -> the change to the present one, within the opening transaction."""


def _create_file(path: Path) -> None:
    """Makes the file before SQLite does, so that none but the owner can read who bought what.

    A file that is there must not be opened: to close it again would drop this process's locks on
    it, those of its other connections too, and a process that then closes its own would take itself
    for the last and remove the write-ahead log that the others go on writing to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreError(
            f"The event store {path} cannot be made: {error.strerror or error}.",
            remedy="Give the path of a file in a folder that can be written.",
        ) from error


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # extended codes carry the primary one in their low byte
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
