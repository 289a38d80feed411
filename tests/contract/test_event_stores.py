"""Every event store keeps the same promises; a new one is one row of `STORES`."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raymeta.errors import StoreError
from raymeta.serve.user_events.base import SCHEMA_VERSION, EventStore, StoredEvent, UserRecord
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.serve.user_events.sqlite import SqliteEventStore

RETAINED = 5
STORES: dict[str, Callable[[Path], EventStore]] = {
    "memory": lambda path: MemoryEventStore(retained_events=RETAINED),
    "sqlite": lambda path: SqliteEventStore(path / "events.sqlite", retained_events=RETAINED),
}
ResultT = TypeVar("ResultT")


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    return asyncio.run(work)


def event(event_id: str, item_id: str = "a", at: int = 0, **values: Any) -> StoredEvent:
    return StoredEvent(
        event_id, item_id, values.pop("event_type", "purchase"), timestamp_ms=at, **values
    )


@pytest.fixture(params=STORES, ids=str)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()


def test_an_unknown_user_is_empty_and_not_an_error(store: EventStore) -> None:
    assert run(store.read("t", "nobody")) == UserRecord()
    assert run(store.version("t", "nobody")) == 0
    run(store.check())


def test_what_was_appended_is_read_whole(store: EventStore) -> None:
    written = event(
        "1",
        "item",
        at=1_700_000_000_000,
        value=2.5,
        visit_id="v",
        query="q",
        ranking_id="r",
        position=3,
        propensity=0.25,
    )
    result = run(store.append("t", "u", [written]))
    record = run(store.read("t", "u"))
    assert (result.state_version, result.accepted, result.duplicates) == (1, 1, 0)
    assert record.events == (written,)
    assert record.seen_items == {"item"}
    assert record.num_events == 1


def test_the_version_grows_only_with_what_is_added(store: EventStore) -> None:
    versions = [
        run(store.append("t", "u", events)).state_version
        for events in ([event("1")], [event("1")], [], [event("2"), event("3")])
    ]
    assert versions == [1, 1, 1, 2]
    assert run(store.version("t", "u")) == 2


def test_a_repeated_event_id_is_a_duplicate_within_and_across_appends(store: EventStore) -> None:
    first = run(store.append("t", "u", [event("1", "a"), event("1", "b"), event("2", "c")]))
    again = run(store.append("t", "u", [event("2", "z"), event("3", "d")]))
    assert (first.accepted, first.duplicates) == (2, 1)
    assert (again.accepted, again.duplicates) == (1, 1)
    assert [e.item_id for e in run(store.read("t", "u")).events] == ["a", "c", "d"]


def test_users_and_tenants_never_share(store: EventStore) -> None:
    run(store.append("t", "u", [event("1", "a")]))
    run(store.append("t", "v", [event("1", "b")]))
    run(store.append("s", "u", [event("1", "c")]))
    read = {key: run(store.read(*key)).seen_items for key in [("t", "u"), ("t", "v"), ("s", "u")]}
    assert read == {("t", "u"): {"a"}, ("t", "v"): {"b"}, ("s", "u"): {"c"}}


def test_events_come_in_time_order_however_they_arrived(store: EventStore) -> None:
    run(store.append("t", "u", [event("1", "b", at=5), event("2", "c", at=1)]))
    run(store.append("t", "u", [event("3", "a", at=5), event("4", "a", at=5, event_type="cart")]))
    assert [e.event_id for e in run(store.read("t", "u")).events] == ["2", "4", "3", "1"]


def test_only_the_last_events_are_retained_but_ids_and_seen_items_stay(store: EventStore) -> None:
    for number in range(8):
        run(store.append("t", "u", [event(str(number), f"item{number}", at=number)]))
    late = run(store.append("t", "u", [event("late", "old", at=-1), event("0", "item0", at=0)]))
    record = run(store.read("t", "u"))
    assert [e.timestamp_ms for e in record.events] == [3, 4, 5, 6, 7]
    assert record.seen_items == {"old", *(f"item{n}" for n in range(8))}
    assert record.num_events == 9
    assert (late.accepted, late.duplicates) == (1, 1)


def test_an_impression_is_kept_but_not_seen(store: EventStore) -> None:
    run(store.append("t", "u", [event("1", "shown", event_type="impression")]))
    record = run(store.read("t", "u"))
    assert record.num_events == 1
    assert record.seen_items == frozenset()


def test_concurrent_appends_to_one_user_keep_every_event_once(store: EventStore) -> None:
    """Threads with their own event loops, each event sent by two of them."""
    accepted: list[int] = []

    async def send(worker: int) -> None:
        results = await asyncio.gather(
            *(store.append("t", "u", [event(f"{worker // 2}-{n}", at=n)]) for n in range(25))
        )
        accepted.append(sum(r.accepted for r in results))

    threads = [threading.Thread(target=lambda w=w: run(send(w))) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = run(store.read("t", "u"))
    assert sum(accepted) == 50
    assert record.num_events == 50
    assert record.state_version == 50


def test_text_of_any_script_and_odd_characters_survives(store: EventStore) -> None:
    written = event("é\x00'; --", "商品\U0001f6d2", query='"%_\\')
    run(store.append("täñant", "Ωuser\n", [written]))
    assert run(store.read("täñant", "Ωuser\n")).events == (written,)


def test_closing_twice_is_safe(store: EventStore) -> None:
    store.close()
    store.close()


# --- what only a store on disk can promise


def sqlite_store(path: Path) -> SqliteEventStore:
    return SqliteEventStore(path / "events.sqlite", retained_events=RETAINED)


def test_two_openings_of_one_file_see_each_others_events(tmp_path: Path) -> None:
    one, other = sqlite_store(tmp_path), sqlite_store(tmp_path)
    run(one.append("t", "u", [event("1")]))
    assert run(other.append("t", "u", [event("1"), event("2")])).state_version == 2
    assert run(one.version("t", "u")) == 2
    one.close()
    other.close()


def test_a_process_killed_after_the_answer_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from raymeta.serve.user_events.base import StoredEvent
from raymeta.serve.user_events.sqlite import SqliteEventStore
store = SqliteEventStore(Path({str(tmp_path)!r}) / "events.sqlite", retained_events=5)
asyncio.run(store.append("t", "u", [StoredEvent("1", "a", "purchase", 0)]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = os.pathsep.join(sys.path)
    ended = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    store = sqlite_store(tmp_path)
    assert run(store.read("t", "u")).num_events == 1
    store.close()


def test_it_flushes_to_disk_before_it_answers(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    full = 2
    assert store._writing.execute("PRAGMA synchronous").fetchone() == (full,)
    assert store._writing.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_appends_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    commits: list[str] = []
    store._writing.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    blocker = sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # holds the first append, so that the others gather

    async def send() -> None:
        appends = [
            asyncio.ensure_future(store.append("t", f"u{n}", [event("1")])) for n in range(9)
        ]
        await asyncio.sleep(0.2)
        blocker.execute("ROLLBACK")
        await asyncio.gather(*appends)

    run(send())
    blocker.close()
    assert 1 <= len(commits) <= 2
    store.close()


def test_one_append_that_cannot_be_stored_fails_alone(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)

    async def send() -> list[object]:
        bad = event("1", "\ud800")  # half a surrogate pair has no UTF-8 form
        appends = (store.append("t", f"u{n}", [bad if n == 3 else event("1")]) for n in range(6))
        return await asyncio.gather(*appends, return_exceptions=True)

    results = run(send())
    assert [isinstance(result, StoreError) for result in results].index(True) == 3
    assert sum(run(store.version("t", f"u{n}")) for n in range(6)) == 5
    store.close()


def test_a_schema_of_another_version_is_refused(tmp_path: Path) -> None:
    sqlite_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1}"):
        sqlite_store(tmp_path)


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        sqlite_store(tmp_path)
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    connection.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite").write_text("user,item\n" * 100)
    with pytest.raises(StoreError, match="not a database"):
        sqlite_store(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        SqliteEventStore(tmp_path / "file" / "events.sqlite", retained_events=1)


def test_none_but_the_owner_can_read_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = sqlite_store(tmp_path)
        run(store.append("t", "u", [event("1")]))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    store.close()
    assert modes == {0o600}


def test_a_write_that_another_process_blocks_too_long_is_refused(tmp_path: Path) -> None:
    store = SqliteEventStore(tmp_path / "events.sqlite", retained_events=5, busy_timeout_s=0.1)
    blocker = sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"busy for more than 0\.1 s"):
        run(store.append("t", "u", [event("1")]))
    assert run(store.read("t", "u")) == UserRecord()
    blocker.execute("ROLLBACK")
    blocker.close()
    assert run(store.append("t", "u", [event("1")])).accepted == 1
    store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        run(store.append("t", "u", [event("1")]))
    with pytest.raises(StoreError, match="closed"):
        run(store.read("t", "u"))
