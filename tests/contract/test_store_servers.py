"""Stores on a server: what they refuse, and what a lost or slow server does to them."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from raymeta.errors import StoreError
from raymeta.serve.user_events.base import SCHEMA_VERSION, EventStore, Retention, StoredEvent
from tests.helpers.servers import PostgresServer, RedisServer, Server, Servers

RETENTION = Retention(events=5)
KINDS = ("redis", pytest.param("postgres", marks=pytest.mark.slow))
ResultT = TypeVar("ResultT")


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    return asyncio.run(work)


def event(event_id: str) -> StoredEvent:
    return StoredEvent(event_id, "a", "purchase", timestamp_ms=5)


def server_of(kind: str, servers: Servers) -> RedisServer | PostgresServer:
    return servers.redis() if kind == "redis" else servers.postgres()


def until_answered(work: Any, *, within_s: float = 10.0) -> Any:
    """Repeats as a client would, with the same ids."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return run(work())
        except StoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def opened(server: Any, name: str, **options: Any) -> Iterator[EventStore]:
    store = server.open(name, retention=RETENTION, **options)
    try:
        yield store
    finally:
        store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_two_openings_see_each_others_events(kind: str, servers: Servers) -> None:
    server = server_of(kind, servers)
    with opened(server, "shared") as one, opened(server, "shared") as other:
        run(one.append("t", "u", [event("1")], received_ms=9))
        again = run(other.append("t", "u", [event("1"), event("2")], received_ms=9))
        assert (again.state_version, again.accepted) == (2, 1)
        assert run(one.version("t", "u")).number == 2


@pytest.mark.parametrize("kind", KINDS)
def test_concurrent_groups_of_users_in_two_processes_never_wait_for_ever(
    kind: str, servers: Servers
) -> None:
    async def send(store: EventStore, name: str, users: list[str]) -> None:
        await asyncio.gather(
            *(
                store.append("t", u, [event(f"{name}{n}")], received_ms=9)
                for n in range(20)
                for u in users
            )
        )

    async def both(one: EventStore, other: EventStore) -> None:
        users = [f"u{n}" for n in range(10)]
        await asyncio.gather(send(one, "a", users), send(other, "b", users[::-1]))

    server = server_of(kind, servers)
    with opened(server, "groups") as one, opened(server, "groups") as other:
        run(both(one, other))
        assert [run(one.read("t", f"u{n}")).num_events for n in range(10)] == [40] * 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_killed_after_the_answer_loses_nothing_and_is_found_again(
    kind: str, servers: Servers
) -> None:
    server = server_of(kind, servers)
    with opened(server, "killed") as store:
        assert store.durable
        run(store.append("t", "u", [event("1")], received_ms=9))
        server.kill()
        for work in (store.read("t", "u"), store.append("t", "u", [event("2")], received_ms=9)):
            with pytest.raises(StoreError, match="event store"):
                run(work)
        server.start()
        result = until_answered(lambda: store.append("t", "u", [event("2")], received_ms=9))
        assert result.state_version == 2
        record = until_answered(lambda: store.read("t", "u"))
        assert [e.event_id for e in record.events] == ["1", "2"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_does_not_answer_is_given_up_in_time(kind: str, servers: Servers) -> None:
    server: Server = server_of(kind, servers)
    with opened(server, "frozen", timeout_s=0.5) as store:
        run(store.append("t", "u", [event("1")], received_ms=9))
        server.freeze()
        try:
            started = time.monotonic()
            with pytest.raises(StoreError):
                run(store.append("t", "u", [event("2")], received_ms=9))
            assert time.monotonic() - started < 5.0
        finally:
            server.thaw()
        # done or not, sending it again leaves it there once
        until_answered(lambda: store.append("t", "u", [event("2")], received_ms=9))
        record = until_answered(lambda: store.read("t", "u"))
        assert [e.event_id for e in record.events] == ["1", "2"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_server_is_an_error_at_once(kind: str, servers: Servers) -> None:
    server = server_of(kind, servers)
    absent = type(server)(server.folder)
    with pytest.raises(StoreError, match="event store"):
        absent.open("absent", retention=RETENTION, timeout_s=1.0)


def test_a_redis_that_may_evict_is_refused(servers: Servers) -> None:
    with opened(servers.redis(), "evicts") as store:
        client: Any = store._client  # type: ignore[attr-defined]
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StoreError, match="may evict keys"):
                servers.redis().open("evicts", retention=RETENTION)
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_redis_that_flushes_once_a_second_says_so(servers: Servers) -> None:
    with opened(servers.redis(), "everysec") as store:
        client: Any = store._client  # type: ignore[attr-defined]
        client.config_set("appendfsync", "everysec")
        try:
            with opened(servers.redis(), "everysec") as other:
                assert not other.durable
        finally:
            client.config_set("appendfsync", "always")


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_of_the_second_version_gains_places(kind: str, servers: Servers) -> None:
    server = server_of(kind, servers)
    old = event("e1")
    with opened(server, "second") as store:
        run(store.append("t", "u", [old], received_ms=9))
        if kind == "redis":
            store._client.set("second:schema", 2)  # type: ignore[attr-defined]
        else:
            writing: Any = store._writer._connection  # type: ignore[attr-defined]
            writing.raw.execute("ALTER TABLE events DROP COLUMN place")
            writing.raw.execute("UPDATE schema_version SET version = 2")
    placed = replace(event("e2"), place="branch 7")
    with opened(server, "second") as store:
        assert run(store.append("t", "u", [old, placed], received_ms=9)).duplicates == 1
        assert [e.place for e in run(store.read("t", "u")).events] == [None, "branch 7"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_schema_version_is_refused(kind: str, servers: Servers) -> None:
    server = server_of(kind, servers)
    with opened(server, "newer") as store:
        if kind == "redis":
            store._client.set("newer:schema", SCHEMA_VERSION + 1)  # type: ignore[attr-defined]
        else:
            writing: Any = store._writer._connection  # type: ignore[attr-defined]
            writing.raw.execute("UPDATE schema_version SET version = version + 1")
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION + 1}"):
        server.open("newer", retention=RETENTION)
