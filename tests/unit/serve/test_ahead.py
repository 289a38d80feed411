"""A list is made while the store flushes, and leaves only once what it is made of is durable."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from raymeta.errors import StoreError
from raymeta.serve.schemas.recommend import RecommendRequest
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import AppendResult, EventStore, StoredEvent, UserRecord
from tests.unit.serve.conftest import SmallArtifact

REQUEST = RecommendRequest.model_validate(
    {
        "user_id": "u",
        "n": 1,
        "events": [{"event_id": "1", "item_id": "item2", "event_type": "purchase"}],
    }
)


class Flushing:
    """A store that tells of a record, then waits for `flushed` before it answers with another.

    Args:
        store: what is asked.
        told: the record that it tells of; None: the one that it will answer with.
    """

    durable = True

    def __init__(self, store: EventStore, told: UserRecord | None = None) -> None:
        self._store, self._told = store, told
        self.flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def append_and_read(
        self,
        tenant: str,
        user_id: str,
        events: Sequence[StoredEvent],
        *,
        ahead: Callable[[UserRecord], None],
        **options: Any,
    ) -> tuple[AppendResult, UserRecord]:
        result, record = await self._store.append_and_read(tenant, user_id, events, **options)
        ahead(self._told or record)
        await self.flushed
        return result, record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def turns() -> None:
    """As many turns of the event loop as a list takes to be made."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_list_is_made_before_the_flush_ends_and_sent_after_it(
    make_service: Callable[..., Service], store: EventStore, artifact: SmallArtifact
) -> None:
    async def ask() -> None:
        slow = Flushing(store)
        answer = asyncio.ensure_future(make_service(of=slow).answers.recommend(REQUEST))
        await turns()
        assert artifact.algorithm.batches == [1, 1]  # the model's own start, and this user
        assert not answer.done()
        slow.flushed.set_result(None)
        assert [item.id for item in (await answer).items] == ["item3"]
        assert artifact.algorithm.batches == [1, 1]  # not made again

    asyncio.run(ask())


def test_nothing_is_sent_or_kept_of_events_that_were_not_kept(
    make_service: Callable[..., Service], store: EventStore
) -> None:
    async def ask() -> None:
        slow = Flushing(store)
        service = make_service(of=slow)
        answer = asyncio.ensure_future(service.answers.recommend(REQUEST))
        await turns()
        slow.flushed.set_exception(StoreError("The disk is full."))
        with pytest.raises(StoreError, match="disk"):
            await answer
        assert len(service.states) == 0

    asyncio.run(ask())


def test_a_list_of_another_record_than_the_one_that_was_kept_is_made_again(
    make_service: Callable[..., Service], store: EventStore
) -> None:
    async def ask() -> None:
        slow = Flushing(store, told=UserRecord())
        answer = asyncio.ensure_future(make_service(of=slow).answers.recommend(REQUEST))
        await turns()
        slow.flushed.set_result(None)
        found = await answer
        assert ([item.id for item in found.items], found.n_support) == (["item3"], 1)

    asyncio.run(ask())
