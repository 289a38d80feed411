"""What a store in a file promises beside the contract of every store."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raymeta.errors import ConflictError, StoreError
from raymeta.serve.user_events import sql_changes
from raymeta.serve.user_events.base import (
    SCHEMA_VERSION,
    AppendResult,
    EventStore,
    Retention,
    StoredEvent,
    UserRecord,
)
from raymeta.serve.user_events.engine import SqlEventStore
from raymeta.serve.user_events.sqlite import open_sqlite

ResultT = TypeVar("ResultT")


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    return asyncio.run(work)


def event(event_id: str, item_id: str = "a") -> StoredEvent:
    return StoredEvent(event_id, item_id, "purchase", timestamp_ms=5)


def append(store: EventStore, user_id: str, *events: StoredEvent) -> AppendResult:
    return run(store.append("t", user_id, events, received_ms=10))


def open_store(path: Path, **options: Any) -> SqlEventStore:
    return open_sqlite(path / "events.sqlite", retention=Retention(events=5), **options)


def test_two_openings_of_one_file_see_each_others_events(tmp_path: Path) -> None:
    one, other = open_store(tmp_path), open_store(tmp_path)
    append(one, "u", event("1"))
    assert append(other, "u", event("1"), event("2")).state_version == 2
    assert run(one.version("t", "u")).number == 2
    one.close()
    other.close()


def test_a_process_that_closes_the_file_leaves_the_others_their_log(tmp_path: Path) -> None:
    """Locks on a file belong to a process: opening and closing it anew must not drop them, or the
    process that closes it next believes to be the last and removes the log of the others."""
    store = open_store(tmp_path)
    append(store, "u", event("1"))
    open_store(tmp_path).close()  # a further connection of this process
    script = f"""
import asyncio
from pathlib import Path
from raymeta.serve.user_events.base import Retention
from raymeta.serve.user_events.sqlite import open_sqlite
store = open_sqlite(Path({str(tmp_path)!r}) / "events.sqlite", retention=Retention(events=5))
print(asyncio.run(store.version("t", "u")).number)
store.close()
"""

    def other_process() -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    assert other_process() == "1"
    append(store, "u", event("2"))
    assert other_process() == "2"
    store.close()


def test_a_process_killed_after_the_answer_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from raymeta.serve.user_events.base import Retention, StoredEvent
from raymeta.serve.user_events.sqlite import open_sqlite
store = open_sqlite(Path({str(tmp_path)!r}) / "events.sqlite", retention=Retention(events=5))
event = StoredEvent("1", "a", "purchase", 0)
asyncio.run(store.append("t", "u", [event], received_ms=1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = os.pathsep.join(sys.path)
    ended = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    store = open_store(tmp_path)
    assert run(store.read("t", "u")).num_events == 1
    store.close()


def test_it_flushes_to_disk_before_it_answers(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    connection: Any = store._writer._connection
    full = 2
    assert connection.raw.execute("PRAGMA synchronous").fetchone() == (full,)
    assert connection.raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.durable
    store.close()


def test_changes_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    connection: Any = store._writer._connection
    commits: list[str] = []
    connection.raw.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    blocker = sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # holds the first append, so that the others gather

    async def send() -> None:
        appends = [
            asyncio.ensure_future(store.append("t", f"u{n}", [event("1")], received_ms=9))
            for n in range(9)
        ]
        await asyncio.sleep(0.2)
        blocker.execute("ROLLBACK")
        await asyncio.gather(*appends)

    run(send())
    blocker.close()
    assert 1 <= len(commits) <= 2
    store.close()


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ([event("1", "\ud800")], StoreError),  # half a surrogate pair has no UTF-8 form
        ([event("1"), event("1", "b")], ConflictError),
    ],
    ids=["not storable", "conflict"],
)
def test_one_append_that_cannot_be_stored_fails_alone(
    tmp_path: Path, bad: list[StoredEvent], kind: type[Exception]
) -> None:
    store = open_store(tmp_path)

    async def send() -> list[object]:
        appends = (
            store.append("t", f"u{n}", bad if n == 3 else [event("1")], received_ms=9)
            for n in range(6)
        )
        return await asyncio.gather(*appends, return_exceptions=True)

    results = run(send())
    assert [isinstance(result, kind) for result in results].index(True) == 3
    assert sum(run(store.version("t", f"u{n}")).number for n in range(6)) == 5
    store.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1}"):
        open_store(tmp_path)


VERSION_1 = """
CREATE TABLE users (
    user_key INTEGER PRIMARY KEY, tenant TEXT NOT NULL, user_id TEXT NOT NULL,
    state_version INTEGER NOT NULL DEFAULT 0, num_events INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, user_id)
) STRICT;
CREATE TABLE events (
    user_key INTEGER NOT NULL, sequence INTEGER NOT NULL, event_id TEXT NOT NULL,
    item_id TEXT NOT NULL, event_type TEXT NOT NULL, timestamp_ms INTEGER NOT NULL, value REAL,
    visit_id TEXT, query TEXT, ranking_id TEXT, position INTEGER, propensity REAL,
    PRIMARY KEY (user_key, timestamp_ms, item_id, event_type, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE taken_event_ids (
    user_key INTEGER NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (user_key, event_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen_items (
    user_key INTEGER NOT NULL, item_id TEXT NOT NULL, PRIMARY KEY (user_key, item_id)
) STRICT, WITHOUT ROWID;
INSERT INTO users VALUES (7, 't', 'u', 3, 4);
INSERT INTO events VALUES (7, 4, 'e4', 'b', 'purchase', 9, 2.5, 'v', NULL, NULL, 1, 0.5);
INSERT INTO taken_event_ids VALUES (7, 'e1'), (7, 'e4');
INSERT INTO seen_items VALUES (7, 'a'), (7, 'b');
PRAGMA application_id = 1918990701;
PRAGMA user_version = 1;
"""


def test_a_store_of_the_first_release_is_migrated_whole(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.executescript(VERSION_1)
    connection.close()
    store = open_store(tmp_path)
    record = run(store.read("t", "u"))
    assert record.events == (StoredEvent("e4", "b", "purchase", 9, 2.5, "v", None, None, 1, 0.5),)
    assert (record.state_version, record.num_events) == (3, 4)
    assert record.seen_items == {"a", "b"}
    # the ids stay taken, whatever was sent under them
    again = append(store, "u", event("e1", "x"), event("e4", "y"), event("e5", "z"))
    assert again == AppendResult(4, accepted=1, duplicates=2)
    store.close()
    open_store(tmp_path).close()


def test_a_store_of_the_second_version_gains_places(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    append(store, "u", event("e1", "x"))
    store.close()
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute("ALTER TABLE events DROP COLUMN place")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    store = open_store(tmp_path)
    placed = replace(event("e2", "y"), place="branch 7")
    assert append(store, "u", event("e1", "x"), placed) == AppendResult(2, accepted=1, duplicates=1)
    assert [e.place for e in run(store.read("t", "u")).events] == [None, "branch 7"]
    store.close()
    open_store(tmp_path).close()


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        open_store(tmp_path)
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    connection.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite").write_text("user,item\n" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_store(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        open_sqlite(tmp_path / "file" / "events.sqlite", retention=Retention(events=1))


def test_none_but_the_owner_can_read_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(tmp_path)
        append(store, "u", event("1"))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    store.close()
    assert modes == {0o600}


def test_a_write_that_another_process_blocks_too_long_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, busy_timeout_s=0.1)
    blocker = sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"busy for more than 0\.1 s"):
        append(store, "u", event("1"))
    assert run(store.read("t", "u")) == UserRecord()
    blocker.execute("ROLLBACK")
    blocker.close()
    assert append(store, "u", event("1")).accepted == 1
    store.close()


def test_a_record_in_memory_never_hides_what_another_process_wrote(tmp_path: Path) -> None:
    one, other = open_store(tmp_path), open_store(tmp_path)
    with contextlib.closing(one), contextlib.closing(other):

        async def both() -> None:
            for number in range(40):
                store = one if number % 3 else other
                _, record = await store.append_and_read(
                    "t", "u", [event(f"{number}")], received_ms=10**15
                )
                last = [f"{n}" for n in range(max(0, number - 4), number + 1)]
                assert [e.event_id for e in record.events] == last

        asyncio.run(both())


def test_what_was_not_committed_is_not_remembered(tmp_path: Path) -> None:
    with contextlib.closing(open_store(tmp_path)) as store:

        async def conflict() -> None:
            await store.append_and_read("t", "u", [event("1")], received_ms=9)
            told: list[Any] = []
            good, bad = event("2"), event("1", item_id="another")
            results = await asyncio.gather(
                store.append_and_read("t", "u", [good], received_ms=9, ahead=told.append),
                store.append_and_read("t", "u", [bad], received_ms=9, ahead=told.append),
                return_exceptions=True,
            )
            assert isinstance(results[1], ConflictError)
            assert not isinstance(results[0], BaseException)
            assert results[0][1] == await store.read("t", "u")
            _, record = await store.append_and_read("t", "u", [event("3")], received_ms=9)
            assert [e.event_id for e in record.events] == ["1", "2", "3"]

        asyncio.run(conflict())


def test_changes_of_one_user_in_one_commit_read_its_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = sql_changes.read

    def counted(*args: Any, **terms: Any) -> UserRecord:
        reads.append(args[1:])
        return read(*args, **terms)

    monkeypatch.setattr(sql_changes, "read", counted)
    store = open_store(tmp_path)
    append(store, "u", event("0"))

    async def at_once() -> list[tuple[AppendResult, UserRecord]]:
        works = [
            store.append_and_read("t", "u", [event(str(n), f"i{n}")], received_ms=10)
            for n in range(1, 5)
        ]
        return await asyncio.gather(*works)

    records = [record for _, record in run(at_once())]
    assert [record.version.number for record in records] == [2, 3, 4, 5]
    assert [len(record.events) for record in records] == [2, 3, 4, 5]
    assert records[-1] == run(store.read("t", "u"))
    assert reads == [("t", "u")]
    store.close()


def test_what_a_failed_commit_made_of_a_record_is_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    run(store.append_and_read("t", "u", [event("0", "a")], received_ms=10))

    async def at_once() -> list[Any]:
        works = [
            store.append_and_read("t", "u", [event("1", "b"), event("0", "not a")], received_ms=10),
            store.append_and_read("t", "u", [event("2", "c")], received_ms=10),
        ]
        return await asyncio.gather(*works, return_exceptions=True)

    refused, (_, record) = run(at_once())
    assert isinstance(refused, ConflictError)
    assert [e.item_id for e in record.events] == ["a", "c"]
    assert record == run(store.read("t", "u"))
    store.close()
