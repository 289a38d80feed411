"""What the contract tests of event stores share: kinds, how one is opened, short calls."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raymeta.serve.user_events.base import (
    DAY_MS,
    AppendResult,
    EventStore,
    IdempotencyKey,
    Retention,
    StoredEvent,
)
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.serve.user_events.sqlite import open_sqlite
from tests.helpers.clocks import Clock
from tests.helpers.servers import Servers

RETENTION = Retention(
    events=5, user_ttl_ms=100 * DAY_MS, event_id_ttl_ms=30 * DAY_MS, idempotency_ttl_ms=DAY_MS
)
STORES = ("memory", "sqlite", "redis", pytest.param("postgres", marks=pytest.mark.slow))
ResultT = TypeVar("ResultT")


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    return asyncio.run(work)


def event(event_id: str, item_id: str | None = "a", at: int = 0, **values: Any) -> StoredEvent:
    return StoredEvent(
        event_id, item_id, values.pop("event_type", "purchase"), timestamp_ms=at, **values
    )


def append(
    store: EventStore,
    tenant: str,
    user_id: str,
    events: Sequence[StoredEvent],
    *,
    received_ms: int = 10**12,
    key: IdempotencyKey | None = None,
) -> AppendResult:
    return run(store.append(tenant, user_id, events, received_ms=received_ms, key=key))


def open_store(kind: str, path: Path, clock: Clock, servers: Servers) -> EventStore:
    if kind == "memory":
        return MemoryEventStore(retention=RETENTION, now_ms=clock)
    if kind == "sqlite":
        return open_sqlite(path / "events.sqlite", retention=RETENTION, now_ms=clock)
    if kind == "redis":
        return servers.redis().open(path.name, retention=RETENTION, now_ms=clock)
    return servers.postgres().open(path.name, retention=RETENTION, now_ms=clock)
