"""A store and a learner that say how long each call took: metrics and spans around what they wrap.

Leaves what they do to what they wrap, and names and units to `observability.metrics`.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from raymeta.algorithms.bound import BoundLearner
from raymeta.observability import metrics, tracing
from raymeta.observability.metrics import Meter
from raymeta.serve.user_events.base import (
    AppendResult,
    Erasure,
    EventStore,
    IdempotencyKey,
    ItemChange,
    LoggedRanking,
    StoredEvent,
    UserRecord,
    UserVersion,
)
from raymeta.types import Examples, TaskState

ResultT = TypeVar("ResultT")


class MeasuredStore:
    """An `EventStore` around another.

    Args:
        store: what is asked.
        meter: gets the time of each call, and what became of events.
    """

    def __init__(self, store: EventStore, meter: Meter) -> None:
        self._store = store
        self._meter = meter

    @property
    def durable(self) -> bool:
        return self._store.durable

    async def append(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        received_ms: int,
        key: IdempotencyKey | None = None,
    ) -> AppendResult:
        call = self._store.append(tenant, user_id, events, received_ms=received_ms, key=key)
        result = await self._timed("append", call)
        self._count(result)
        return result

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
        call = self._store.append_and_read(
            tenant, user_id, events, received_ms=received_ms, key=key, ahead=ahead
        )
        result, record = await self._timed("append_and_read", call)
        self._count(result)
        self._meter.observe(metrics.USER_EVENTS, len(record.events))
        return result, record

    async def read(self, tenant: str, user_id: str) -> UserRecord:
        record = await self._timed("read", self._store.read(tenant, user_id))
        self._meter.observe(metrics.USER_EVENTS, len(record.events))
        return record

    async def version(self, tenant: str, user_id: str) -> UserVersion:
        return await self._timed("version", self._store.version(tenant, user_id))

    async def put_features(
        self, tenant: str, user_id: str, features: Mapping[str, Any], *, replace: bool
    ) -> int:
        call = self._store.put_features(tenant, user_id, features, replace=replace)
        return await self._timed("put_features", call)

    async def log_ranking(self, tenant: str, user_id: str, ranking: LoggedRanking) -> None:
        await self._timed("log_ranking", self._store.log_ranking(tenant, user_id, ranking))

    async def rankings(self, tenant: str, user_id: str) -> tuple[LoggedRanking, ...]:
        return await self._timed("rankings", self._store.rankings(tenant, user_id))

    async def erase(self, tenant: str, user_id: str, *, at_ms: int) -> Erasure:
        return await self._timed("erase", self._store.erase(tenant, user_id, at_ms=at_ms))

    async def user_ids(self, tenant: str, *, after: str, limit: int) -> list[str]:
        call = self._store.user_ids(tenant, after=after, limit=limit)
        return await self._timed("user_ids", call)

    async def put_items(self, tenant: str, items: Sequence[ItemChange]) -> int:
        return await self._timed("put_items", self._store.put_items(tenant, items))

    async def item_changes(self, tenant: str, *, after: int) -> list[ItemChange]:
        return await self._timed("item_changes", self._store.item_changes(tenant, after=after))

    async def sweep(self) -> int:
        return await self._timed("sweep", self._store.sweep())

    async def check(self) -> None:
        await self._timed("check", self._store.check())

    def close(self) -> None:
        self._store.close()

    async def _timed(self, operation: str, call: Awaitable[ResultT]) -> ResultT:
        started = time.perf_counter()
        outcome = "error"
        try:
            with tracing.span(f"store.{operation}"):
                result = await call
            outcome = "ok"
        finally:
            # one that was given up, too: how long it was waited for
            took = time.perf_counter() - started
            self._meter.observe(metrics.STORE_SECONDS, took, operation, outcome)
        return result

    def _count(self, result: AppendResult) -> None:
        if result.replayed:
            return  # counted when it was done
        for outcome, count in (
            ("accepted", result.accepted),
            ("duplicate", result.duplicates),
            ("erased", result.erased),
        ):
            if count:
                self._meter.add(metrics.EVENTS, outcome, count=count)


class MeasuredLearner:
    """A `BoundLearner` around another.

    Args:
        learner: what is asked.
        meter: gets the time of each batch, and how many users it had.
    """

    def __init__(self, learner: BoundLearner, meter: Meter) -> None:
        self._learner = learner
        self._meter = meter

    def adapt(self, support: Examples) -> TaskState:
        num_users = len(next(iter(support.values())))
        started = time.perf_counter()
        with tracing.span("adapt", users=num_users):
            state = self._learner.adapt(support)
        self._meter.observe(metrics.ADAPT_SECONDS, time.perf_counter() - started)
        self._meter.observe(metrics.BATCH_USERS, num_users)
        return state

    def score(self, state: TaskState, candidates: Tensor | None = None) -> Tensor:
        started = time.perf_counter()
        with tracing.span("score"):
            scores = self._learner.score(state, candidates)
        self._meter.observe(metrics.SCORE_SECONDS, time.perf_counter() - started)
        return scores

    def predict(self, state: TaskState, rows: Examples) -> Tensor:
        started = time.perf_counter()
        with tracing.span("predict"):
            probabilities = self._learner.predict(state, rows)
        self._meter.observe(metrics.SCORE_SECONDS, time.perf_counter() - started)
        return probabilities

    def warm_up(self, support: Examples) -> None:
        self._learner.warm_up(support)
