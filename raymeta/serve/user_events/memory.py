"""Events in the memory of one process: for trials, tests, and as the plain statement of a store."""

import threading
import time
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raymeta.serve.user_events.base import (
    MAX_RANKINGS,
    AppendResult,
    Erasure,
    IdempotencyKey,
    ItemChange,
    LoggedRanking,
    Retention,
    StoredEvent,
    UserRecord,
    UserVersion,
    id_digest,
)
from raymeta.serve.user_events.conflicts import event_conflict, key_conflict


@dataclass
class _User:
    epoch_ms: int
    touched_ms: int
    number: int = 0
    num_events: int = 0
    arrivals: int = 0
    events: list[tuple[tuple[int, str, str], int, StoredEvent]] = field(default_factory=list)
    taken: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    features: dict[str, Any] = field(default_factory=dict)
    rankings: list[LoggedRanking] = field(default_factory=list)
    generation: int = 0
    erased_ms: int = -1


@dataclass
class _Answer:
    user_id: str
    body_digest: bytes
    result: AppendResult
    at_ms: int


class MemoryEventStore:
    """An `EventStore` without a disk; what it holds ends with the process.

    Args:
        retention: what bounds it.
        now_ms: the clock that expiry is measured by.
    """

    durable = False

    def __init__(
        self,
        *,
        retention: Retention,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._retention = retention
        self._now_ms = now_ms
        self._users: dict[tuple[str, str], _User] = {}
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._items: dict[str, dict[str, ItemChange]] = {}
        self._lock = threading.Lock()

    async def append(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
    ) -> AppendResult:
        with self._lock:
            if key is not None and (answer := self._answer(tenant, key)) is not None:
                if (answer.user_id, answer.body_digest) != (user_id, key.body_digest):
                    raise key_conflict(key.key)
                return replace(answer.result, replayed=True)
            user = self._user(tenant, user_id) or _User(self._now_ms(), self._now_ms())
            result = self._apply(user, events, received_ms)
            if events:
                self._users[tenant, user_id] = user
            if key is not None:
                self._answers[tenant, key.key] = _Answer(
                    user_id, key.body_digest, result, self._now_ms()
                )
            return result

    def _apply(self, user: _User, events: Sequence[StoredEvent], received_ms: int) -> AppendResult:
        fresh: dict[bytes, StoredEvent] = {}
        erased = duplicates = 0
        for event in events:
            identity = id_digest(event.event_id)
            known = user.taken.get(identity)
            if known is None and identity in fresh:
                known = (fresh[identity].body_digest(), 0)
            if known is not None:
                if known[0] != event.body_digest():
                    raise event_conflict(event.event_id)
                duplicates += 1
            elif min(event.timestamp_ms, received_ms) <= user.erased_ms:
                erased += 1
            else:
                fresh[identity] = event
        for identity, event in fresh.items():
            user.taken[identity] = (event.body_digest(), self._now_ms())
            if event.marks_seen() and event.item_id is not None:
                user.seen.add(event.item_id)
            user.arrivals += 1
            insort(user.events, (event.order(), user.arrivals, event))
        del user.events[: -self._retention.events]
        user.num_events += len(fresh)
        user.number += bool(fresh)
        user.touched_ms = self._now_ms()
        return AppendResult(user.number, len(fresh), duplicates, erased)

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
        del ahead  # there is nothing to wait for
        result = await self.append(tenant, user_id, events, received_ms=received_ms, key=key)
        return result, await self.read(tenant, user_id)

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        with self._lock:
            user = self._user(tenant, user_id)
            version = self._version(tenant, user)
            if user is None:
                return UserRecord(version)
            return UserRecord(
                version=version,
                num_events=user.num_events,
                events=tuple(row[-1] for row in user.events),
                seen_items=frozenset(user.seen),
                features=dict(user.features),
                generation=user.generation,
            )

    async def version(self, tenant: str, user_id: str) -> UserVersion:
        with self._lock:
            return self._version(tenant, self._user(tenant, user_id))

    async def put_features(
        self, tenant: str, user_id: str, features: Mapping[str, Any], *, replace: bool
    ) -> int:
        with self._lock:
            now = self._now_ms()
            user = self._user(tenant, user_id) or _User(now, now)
            merged = {} if replace else user.features
            merged = {k: v for k, v in {**merged, **features}.items() if v is not None}
            user.features, user.number, user.touched_ms = merged, user.number + 1, now
            self._users[tenant, user_id] = user
            return user.number

    async def log_ranking(self, tenant: str, user_id: str, ranking: LoggedRanking) -> None:
        with self._lock:
            now = self._now_ms()
            user = self._user(tenant, user_id) or _User(now, now)
            self._users[tenant, user_id] = user
            user.rankings = [*user.rankings, ranking][-MAX_RANKINGS:]

    async def rankings(self, tenant: str, user_id: str) -> tuple[LoggedRanking, ...]:
        with self._lock:
            user = self._user(tenant, user_id)
            return tuple(user.rankings) if user is not None else ()

    async def erase(self, tenant: str, user_id: str, *, at_ms: int) -> Erasure:
        with self._lock:
            now = self._now_ms()
            user = self._user(tenant, user_id) or _User(now, now)
            if at_ms <= user.erased_ms:
                return Erasure(user.generation, user.number, 0)
            self._users[tenant, user_id] = _User(
                user.epoch_ms,
                now,
                number=user.number + 1,
                taken=user.taken,
                generation=user.generation + 1,
                erased_ms=at_ms,
            )
            for key, answer in list(self._answers.items()):
                if key[0] == tenant and answer.user_id == user_id:
                    del self._answers[key]
            return Erasure(user.generation + 1, user.number + 1, user.num_events)

    async def user_ids(self, tenant: str, *, after: str, limit: int) -> list[str]:
        with self._lock:
            ids = sorted(
                user_id
                for (of, user_id), user in self._users.items()
                if of == tenant and user_id > after and (user.num_events or user.features)
            )
            return [user_id for user_id in ids if self._user(tenant, user_id)][:limit]

    async def put_items(self, tenant: str, items: Sequence[ItemChange]) -> int:
        with self._lock:
            stored = self._items.setdefault(tenant, {})
            version = 1 + max((item.version for item in stored.values()), default=0)
            for item in items:
                stored[item.item_id] = replace(item, version=version)
            return version

    async def item_changes(self, tenant: str, *, after: int) -> list[ItemChange]:
        with self._lock:
            items = [i for i in self._items.get(tenant, {}).values() if i.version > after]
            return sorted(items, key=lambda item: (item.version, item.item_id))

    async def sweep(self) -> int:
        with self._lock:
            now, kept = self._now_ms(), self._retention
            gone = 0
            for name in list(self._users):
                user = self._user(*name)
                if user is None or self._is_old_tombstone(user):
                    del self._users[name]
                    gone += 1
                    continue
                old = [i for i, (_, at) in user.taken.items() if at < now - kept.event_id_ttl_ms]
                for identity in old:
                    del user.taken[identity]
                gone += len(old)
            for key, answer in list(self._answers.items()):
                if answer.at_ms < now - kept.idempotency_ttl_ms:
                    del self._answers[key]
                    gone += 1
            return gone

    async def check(self) -> None:
        return None

    def close(self) -> None:
        return None

    def _is_old_tombstone(self, user: _User) -> bool:
        empty = not (user.num_events or user.features or user.rankings)
        return empty and user.touched_ms < self._now_ms() - self._retention.event_id_ttl_ms

    def _version(self, tenant: str, user: _User | None) -> UserVersion:
        catalogue = max((i.version for i in self._items.get(tenant, {}).values()), default=0)
        if user is None:
            return UserVersion(catalogue=catalogue)
        return UserVersion(user.number, user.epoch_ms, catalogue)

    def _answer(self, tenant: str, key: IdempotencyKey) -> _Answer | None:
        answer = self._answers.get((tenant, key.key))
        oldest = self._now_ms() - self._retention.idempotency_ttl_ms
        return answer if answer is not None and answer.at_ms >= oldest else None

    def _user(self, tenant: str, user_id: str) -> _User | None:
        """The user, unless unknown or forgotten."""
        user = self._users.get((tenant, user_id))
        ttl = self._retention.user_ttl_ms
        if user is not None and ttl is not None and user.touched_ms < self._now_ms() - ttl:
            return None
        return user
