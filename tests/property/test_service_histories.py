"""Random histories of two replicas on one store, with faults, against a plain model of them.

Clients send events (new ones, and the same again), ask, and erase, several at a time; store calls
fail before they are done, after, and while they go on alone; replicas are replaced. Then:

    a  every acknowledged event is there once, and nothing that was never sent;
    b  an answer after an acknowledgement reflects it, on either replica;
    c  nothing of before an erasure can be read, or comes back late;
    d  the state is what replaying the log gives.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymeta.config.serving import LimitsConfig, RetentionConfig
from raymeta.errors import StoreError
from raymeta.serve.access import Keys
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.schemas.events import Event, EventsRequest
from raymeta.serve.schemas.recommend import RecommendRequest, SessionRequest
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import EventStore, Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.serve.user_events.sqlite import open_sqlite
from tests.helpers.clocks import Clock
from tests.unit.serve.conftest import SmallArtifact

USERS = ("ann", "bob", "cy")
ITEMS = ("item0", "item1", "item2", "item3", "item4", "item5")
RETENTION = Retention(events=10_000)


class FaultyStore:
    """Fails a share of the changes: before they are done, after, or while they go on alone."""

    def __init__(self, store: EventStore, rng: random.Random, *, share: float) -> None:
        self._store = store
        self._rng = rng
        self._share = share
        self.in_flight: list[asyncio.Task[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, *arguments: Any, **options: Any) -> Any:
        return await self._faulty(lambda: self._store.append(*arguments, **options))

    async def erase(self, *arguments: Any, **options: Any) -> Any:
        return await self._faulty(lambda: self._store.erase(*arguments, **options))

    async def _faulty(self, work: Callable[[], Any]) -> Any:
        kind = self._rng.choice(["before", "after", "in flight"])
        if self._rng.random() >= self._share:
            return await work()
        if kind == "after":
            await work()
        if kind == "in flight":
            self.in_flight.append(asyncio.ensure_future(self._later(work)))
        raise StoreError("The event store failed: injected.")

    async def _later(self, work: Callable[[], Any]) -> None:
        for _ in range(self._rng.randrange(6)):
            await asyncio.sleep(0)
        await work()


@dataclass
class Known:
    """What a client may believe of one user; events of before an erasure are not in it."""

    acknowledged: dict[str, Event] = field(default_factory=dict)
    uncertain: dict[str, Event] = field(default_factory=dict)
    version: int = 0
    erased_ids: set[str] = field(default_factory=set)


class World:
    """Two replicas, their store, and the clients' beliefs."""

    def __init__(self, store: EventStore, executor: ThreadPoolExecutor, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock(1_700_000_000_000)
        self.plain_store = store
        self.store = FaultyStore(store, self.rng, share=0.3)
        self._maker = Maker(executor, max_batch=8, generator=np.random.default_rng(seed))
        self.replicas = [self.replica(), self.replica()]
        self.known = {user: Known() for user in USERS}
        self._count = 0

    def replica(self, store: EventStore | None = None) -> Service:
        service = Service(
            store or self.store,  # type: ignore[arg-type]
            self._maker,
            keys=Keys(),
            limits=LimitsConfig(),
            retention=RetentionConfig(),
            state_cache_bytes=1 << 20,
            now_ms=self.clock,
        )
        variant = first_variant(SmallArtifact(), self._maker)  # type: ignore[arg-type]
        service.use({"default": TenantModels({"default": variant}, "default")})
        return service

    async def step(self, user: str) -> None:
        """One thing that a client of this user does."""
        self.clock.advance(1)
        chance = self.rng.random()
        if chance < 0.5:
            await self.send(user)
        elif chance < 0.9:
            await self.ask(user)
        elif chance < 0.95:
            self.replicas[self.rng.randrange(2)] = self.replica()
        else:
            await self.erase(user)

    async def send(self, user: str) -> None:
        known = self.known[user]
        again = [*known.uncertain.values(), *known.acknowledged.values()]
        if again and self.rng.random() < 0.4:
            event = self.rng.choice(again)
        else:
            self._count += 1
            event = Event(
                event_id=f"{user}-{self._count}",
                item_id=self.rng.choice(ITEMS),
                event_type="purchase",
                timestamp=self.clock(),
            )
        name = str(event.event_id)
        try:
            answer, _ = await self.rng.choice(self.replicas).writes.add_events(
                EventsRequest(user_id=user, events=[event])
            )
        except StoreError:
            if name not in known.acknowledged:
                known.uncertain[name] = event
            return
        assert answer.accepted + answer.duplicates == 1
        known.uncertain.pop(name, None)
        known.acknowledged[name] = event
        known.version = max(known.version, answer.state_version)

    async def ask(self, user: str) -> None:
        before = self.known[user].version
        request = RecommendRequest(user_id=user, n=20, exclude_seen=False)
        answer = await self.rng.choice(self.replicas).answers.recommend(request)
        assert answer.fallback != "store"
        assert answer.state_version >= before

    async def erase(self, user: str) -> None:
        known = self.known[user]
        while True:  # a client repeats until it has the receipt
            try:
                await self.rng.choice(self.replicas).users.erase("default", user)
                break
            except StoreError:
                self.clock.advance(1)
        known.erased_ids |= {*known.acknowledged, *known.uncertain}
        known.acknowledged, known.uncertain = {}, {}

    async def settle(self) -> None:
        await asyncio.gather(*self.store.in_flight)

    async def check(self, user: str) -> None:
        known = self.known[user]
        record = await self.plain_store.read("default", user)
        found = [event.event_id for event in record.events]
        assert len(found) == len(set(found)) == record.num_events
        assert {*known.acknowledged} <= {*found} <= {*known.acknowledged, *known.uncertain}
        assert not {*found} & known.erased_ids
        events = [e for e in (known.acknowledged | known.uncertain).values() if e.event_id in found]
        fresh = self.replica(self.plain_store)
        replayed = await fresh.answers.session(
            SessionRequest(events=events, n=20, exclude_seen=False)
        )
        for replica in (*self.replicas, fresh):
            answer = await replica.answers.recommend(
                RecommendRequest(user_id=user, n=20, exclude_seen=False)
            )
            assert answer.items == replayed.items
            assert answer.n_support == replayed.n_support == len(found)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def live(world: World, *, rounds: int) -> None:
    for _ in range(rounds):
        # one client a user: what two clients of one user believe of each other is not defined
        await asyncio.gather(*(world.step(user) for user in USERS))
    await world.settle()
    for user in USERS:
        await world.check(user)


@pytest.mark.parametrize("seed", range(12))
def test_histories_in_memory(seed: int, executor: ThreadPoolExecutor) -> None:
    store = MemoryEventStore(retention=RETENTION)
    asyncio.run(live(World(store, executor, seed), rounds=60))


@pytest.mark.parametrize("seed", range(100, 104))
def test_histories_on_disk(seed: int, executor: ThreadPoolExecutor, tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "events.sqlite", retention=RETENTION)
    asyncio.run(live(World(store, executor, seed), rounds=40))
    store.close()
