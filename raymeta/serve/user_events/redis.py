"""Events in Redis: shared by the replicas of any number of machines, changed by scripts alone.

Each change is one Lua script, which Redis runs without anything in between, so a version names one
set of events. An acknowledged event outlives the server where that has `appendonly yes` and
`appendfsync always` (`durable` says which); with `everysec` a crash may lose the last second. A
server that may evict keys is refused: it would drop acknowledged events when memory is short.

All keys begin with the prefix and the tenant. For a user `u`: `u:<id>` (hash: versions, counts,
features), `e:<id>` (sorted set of retained events), `t:<id>` (hash of taken ids), `s:<id>` (set of
seen items), `r:<id>` (list of rankings), `k:<id>` (set of the idempotency keys used).
"""

import asyncio
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from typing import Any, TypeVar

from raymeta.errors import ConfigError, RaymetaError, StoreError
from raymeta.serve.user_events import redis_rows, redis_scripts
from raymeta.serve.user_events.base import (
    MAX_RANKINGS,
    SCHEMA_VERSION,
    AppendResult,
    Erasure,
    IdempotencyKey,
    ItemChange,
    LoggedRanking,
    Retention,
    StoredEvent,
    UserRecord,
    UserVersion,
)

NUM_THREADS = 16
"""Calls at a time: with a server 200 ms away, a thread makes five a second."""

SWEEP_BATCH = 500

ResultT = TypeVar("ResultT")


class RedisEventStore:
    """An `EventStore` in a Redis server.

    Args:
        url: e.g. `redis://:password@host:6379/0`; `rediss://` for TLS.
        retention: what bounds the store.
        prefix: of every key.
        timeout_s: how long connecting and each answer may take.
        now_ms: the clock that expiry is measured by.

    Raises:
        StoreError: the server cannot be reached, may evict keys, or holds another schema.
        ConfigError: the client package is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        retention: Retention,
        prefix: str = "raymeta",
        timeout_s: float = 5.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._redis = _client_package()
        self._retention = retention
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._closed = False
        # Any: redis-py types every answer as every kind of answer
        self._client: Any = self._redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # repeating is the caller's to decide, within its own deadline
            retry=self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0),
        )
        self._scripts = {
            name: self._client.register_script(text) for name, text in redis_scripts.SCRIPTS.items()
        }
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="event-store")
        self._closing = threading.Lock()
        try:
            self.durable = self._require_server()
        except BaseException as error:
            self.close()
            raise self._explain(error) from error

    async def append(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
    ) -> AppendResult:
        keys, arguments = self._append_call(tenant, user_id, events, received_ms, key)
        return redis_rows.appended(await self._run("append", keys, arguments), events, key)

    async def append_and_read(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
        ahead: Callable[[UserRecord], None] | None = None,
    ) -> tuple[AppendResult, UserRecord]:
        del ahead  # the server answers once its disk has
        calls = (
            ("append", *self._append_call(tenant, user_id, events, received_ms, key)),
            ("read", *self._read_call(tenant, user_id)),
        )
        appended, read = await self._call(lambda: self._together(calls))
        return redis_rows.appended(appended, events, key), redis_rows.record_of(read)

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        return redis_rows.record_of(await self._run("read", *self._read_call(tenant, user_id)))

    def _append_call(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        received_ms: int,
        key: IdempotencyKey | None,
    ) -> tuple[list[str], list[str | bytes | int]]:
        arguments: list[str | bytes | int] = [
            self._now_ms(),
            self._ttl(),
            received_ms,
            self._retention.events,
            self._retention.idempotency_ttl_ms,
            key.body_digest.hex() if key is not None else "",
            len(events),
            *(value for event in events for value in redis_rows.append_values(event)),
        ]
        keys = self._user_keys(tenant, user_id)
        keys.append(self._key(tenant, "a", key.key if key is not None else ""))
        return keys, arguments

    def _read_call(self, tenant: str, user_id: str) -> tuple[list[str], list[int]]:
        keys = [*self._user_keys(tenant, user_id), self._key(tenant, "catalogue")]
        return keys, [self._now_ms(), self._ttl(), self._retention.events]

    async def version(self, tenant: str, user_id: str) -> UserVersion:
        keys = [self._key(tenant, "u", user_id), self._key(tenant, "catalogue")]
        answer = await self._run("version", keys, [self._now_ms(), self._ttl()])
        number, epoch_ms, catalogue = answer
        return UserVersion(number, int(epoch_ms), int(catalogue))

    async def put_features(
        self, tenant: str, user_id: str, features: Mapping[str, Any], *, replace: bool
    ) -> int:
        arguments: list[str | int] = [self._now_ms(), self._ttl(), int(replace)]
        for name, value in features.items():
            arguments += [name, json.dumps(value)]
        number: int = await self._run("put_features", self._user_keys(tenant, user_id), arguments)
        return number

    async def log_ranking(self, tenant: str, user_id: str, ranking: LoggedRanking) -> None:
        text = json.dumps(astuple(ranking))
        arguments = [self._now_ms(), self._ttl(), text, MAX_RANKINGS]
        await self._run("log_ranking", self._user_keys(tenant, user_id), arguments)

    async def rankings(self, tenant: str, user_id: str) -> tuple[LoggedRanking, ...]:
        keys = self._user_keys(tenant, user_id)
        rows = await self._run("rankings", keys, [self._now_ms(), self._ttl()])
        return tuple(
            LoggedRanking(ranking_id, at, model, tuple((item, p) for item, p in slots))
            for ranking_id, at, model, slots in map(json.loads, rows)
        )

    async def erase(self, tenant: str, user_id: str, *, at_ms: int) -> Erasure:
        arguments = [self._now_ms(), self._ttl(), at_ms]
        keys = self._user_keys(tenant, user_id)
        generation, number, num_events = await self._run("erase", keys, arguments)
        return Erasure(generation, number, num_events)

    async def user_ids(self, tenant: str, *, after: str, limit: int) -> list[str]:
        arguments = [f"({after}" if after else "-", limit, self._now_ms(), self._ttl()]
        keys = [self._key(tenant, "users"), self._key(tenant, "u", "")]
        return [user_id.decode() for user_id in await self._run("user_ids", keys, arguments)]

    async def put_items(self, tenant: str, items: Sequence[ItemChange]) -> int:
        arguments = []
        for item in items:
            values = [dict(item.features), item.available, item.deleted]
            arguments += [item.item_id, json.dumps(values)]
        keys = [self._key(tenant, "catalogue"), self._key(tenant, "items")]
        keys.append(self._key(tenant, "item-versions"))
        number: int = await self._run("put_items", keys, arguments)
        return number

    async def item_changes(self, tenant: str, *, after: int) -> list[ItemChange]:
        keys = [self._key(tenant, "item-versions"), self._key(tenant, "items")]
        rows = await self._run("item_changes", keys, [after])
        changes = []
        for item_id, number, text in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            features, available, deleted = json.loads(text)
            changes.append(ItemChange(item_id.decode(), features, available, deleted, int(number)))
        return changes

    async def sweep(self) -> int:
        return await self._call(self._sweep)

    async def check(self) -> None:
        await self._call(self._client.ping)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._threads.shutdown()
        self._client.close()

    # --- in the store's threads

    async def _run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        script = self._scripts[name]
        return await self._call(lambda: script(keys=list(keys), args=list(arguments)))

    def _together(self, calls: Sequence[tuple[str, Sequence[str], Sequence[Any]]]) -> Sequence[Any]:
        """Scripts in one transaction and one round trip."""
        with self._client.pipeline(transaction=True) as pipeline:
            for name, keys, arguments in calls:
                self._scripts[name](keys=list(keys), args=list(arguments), client=pipeline)
            answers: Sequence[Any] = pipeline.execute()
            return answers

    async def _call(self, work: Callable[[], ResultT]) -> ResultT:
        with self._closing:
            if self._closed:
                raise StoreError("The event store is closed.", remedy="Open a new one.")
            answer = self._threads.submit(work)
        try:
            return await asyncio.wrap_future(answer)
        except (self._redis.RedisError, UnicodeError) as error:
            raise self._explain(error) from error

    def _sweep(self) -> int:
        """Goes through the tenants' lists of users; idempotency keys end by Redis' own clock."""
        gone = 0
        now = self._now_ms()
        tenants = self._client.smembers(f"{self._prefix}:tenants")
        for tenant in sorted(name.decode() for name in tenants):
            listed = self._key(tenant, "users")
            ids = [user_id.decode() for user_id in self._client.zrange(listed, 0, -1)]
            for user_id in ids:
                keys = [*self._user_keys(tenant, user_id)]
                arguments = [now, self._ttl(), now - self._retention.event_id_ttl_ms]
                gone += self._scripts["sweep_user"](keys=keys, args=arguments)
        return gone

    def _require_server(self) -> bool:
        """Refuses a server that would lose events; tells whether it outlives a crash."""
        marker = f"{self._prefix}:schema"
        self._client.set(marker, SCHEMA_VERSION, nx=True)
        found = int(self._client.get(marker))
        if found == 2:  # its events read as they are, without a place
            self._client.set(marker, SCHEMA_VERSION)
            found = SCHEMA_VERSION
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"The event store's prefix {self._prefix!r} has schema version {found}; this "
                f"raymeta reads version {SCHEMA_VERSION} and 2.",
                remedy="Use the raymeta that wrote it, or give another prefix.",
            )
        memory = self._client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise StoreError(
                f"The Redis server may evict keys (maxmemory-policy {policy}), and so would lose "
                "acknowledged events.",
                remedy="Set maxmemory-policy noeviction.",
            )
        return self._appends_always()

    def _appends_always(self) -> bool:
        try:
            settings = self._client.config_get("append*")
        except self._redis.ResponseError:
            return False  # a managed server that does not tell
        return settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always"

    def _user_keys(self, tenant: str, user_id: str) -> list[str]:
        own = [self._key(tenant, kind, user_id) for kind in ("u", "e", "t", "s", "r", "k")]
        return [*own, self._key(tenant, "users"), f"{self._prefix}:tenants"]

    def _key(self, tenant: str, kind: str, name: str | None = None) -> str:
        key = f"{self._prefix}:{tenant}:{kind}"
        return key if name is None else f"{key}:{name}"

    def _ttl(self) -> int:
        return -1 if self._retention.user_ttl_ms is None else self._retention.user_ttl_ms

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, RaymetaError):
            return error
        if isinstance(error, self._redis.TimeoutError):
            return StoreError(
                f"The event store did not answer within {self._timeout_s:g} s.",
                remedy="Send the request again; events with an event_id are never counted twice.",
            )
        if isinstance(error, (self._redis.RedisError, UnicodeError)):
            return StoreError(
                f"The event store failed: {error}.",
                remedy="Send the request again once the Redis server answers.",
            )
        return error


@functools.cache
def _client_package() -> Any:
    try:
        import redis
        import redis.backoff
        import redis.retry
    except ImportError:
        raise ConfigError(
            "The store kind 'redis' needs the package redis, which is not installed.",
            remedy="Install it with: pip install 'raymeta[redis]'",
        ) from None
    return redis
