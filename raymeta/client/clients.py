"""Two clients of one interface, one that waits and one to be awaited: each has a method for every
function of `calls`, sends, and sends again as `Retries` says.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from raymeta.client import calls
from raymeta.client.calls import Call
from raymeta.client.connection import Connection, built, of_a_method
from raymeta.client.outcomes import answer_of
from raymeta.client.retries import Retries
from raymeta.config.serving import DEFAULT

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")

TIMEOUT_S = 10.0
"""Beyond the service's own deadline, so that it says itself that it was late."""


def _waiting(
    build: Callable[P, Call[AnswerT]],
) -> Callable[Concatenate["Client", P], AnswerT]:
    """A method of `Client` that makes this call."""

    @functools.wraps(build)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> AnswerT:
        return self.send(built(build, *args, **kwargs))

    method.__signature__ = of_a_method(build)  # type: ignore[attr-defined]
    return method


def _awaited(
    build: Callable[P, Call[AnswerT]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, AnswerT]]:
    """A method of `AsyncClient` that makes this call."""

    @functools.wraps(build)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> AnswerT:
        return await self.send(built(build, *args, **kwargs))

    method.__signature__ = of_a_method(build)  # type: ignore[attr-defined]
    return method


class Client:
    """A service over HTTP.

    Args:
        base_url: of the service.
        key: the API key, where it asks for one.
        tenant: the shop.
        timeout_s: how long one attempt may take to connect, and to be answered.
        retries: how often a request is sent again, and when.
        transport: how requests are sent; over the network if not given.

    Every method raises a `RequestError` where the service refuses, by kind, and a `ServiceError`
    where it cannot be reached or fails.

    Example:
        with Client("http://127.0.0.1:8000") as client:
            client.events("ann", [Event(item_id="shoe-1", event_type="purchase")])
            for item in client.recommend("ann", n=5).items:
                print(item.id, item.score)
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        tenant: str = DEFAULT,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(base_url, key=key, tenant=tenant, retries=retries)
        self._http = httpx.Client(timeout=timeout_s, transport=transport)

    events = _waiting(calls.events)
    recommend = _waiting(calls.recommend)
    rank = _waiting(calls.rank)
    predict = _waiting(calls.predict)
    session = _waiting(calls.session)
    user = _waiting(calls.user)
    put_user = _waiting(calls.put_user)
    patch_user = _waiting(calls.patch_user)
    erase_user = _waiting(calls.erase_user)
    user_state = _waiting(calls.user_state)
    export_user = _waiting(calls.export_user)
    item = _waiting(calls.item)
    put_item = _waiting(calls.put_item)
    put_items = _waiting(calls.put_items)
    patch_item = _waiting(calls.patch_item)
    delete_item = _waiting(calls.delete_item)
    events_page = _waiting(calls.events_page)
    models = _waiting(calls.models)
    experiments = _waiting(calls.experiments)
    online_metrics = _waiting(calls.online_metrics)
    ready = _waiting(calls.ready)
    request = _waiting(calls.request)

    def export_events(self, *, users_a_page: int = 100) -> Iterator[dict[str, Any]]:
        """Every retained event of the tenant, users by id, read page by page."""
        after: str | None = ""
        while after is not None:
            page = self.events_page(after=after, users=users_a_page)
            yield from page.events
            after = page.next_after

    def send(self, call: Call[AnswerT]) -> AnswerT:
        """Sends a call of `calls`, again where that helps; gives its answer."""
        request, sent = self._connection.request(call), 0
        while True:
            sent += 1
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            wait_s = self._connection.retries.wait_s(outcome, sent=sent)
            if wait_s is None:
                return answer_of(call, outcome)
            time.sleep(wait_s)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for an event loop: the same arguments, and methods to be awaited.

    Example:
        async with AsyncClient("http://127.0.0.1:8000") as client:
            answer = await client.recommend("ann", n=5)
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        tenant: str = DEFAULT,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection(base_url, key=key, tenant=tenant, retries=retries)
        self._http = httpx.AsyncClient(timeout=timeout_s, transport=transport)

    events = _awaited(calls.events)
    recommend = _awaited(calls.recommend)
    rank = _awaited(calls.rank)
    predict = _awaited(calls.predict)
    session = _awaited(calls.session)
    user = _awaited(calls.user)
    put_user = _awaited(calls.put_user)
    patch_user = _awaited(calls.patch_user)
    erase_user = _awaited(calls.erase_user)
    user_state = _awaited(calls.user_state)
    export_user = _awaited(calls.export_user)
    item = _awaited(calls.item)
    put_item = _awaited(calls.put_item)
    put_items = _awaited(calls.put_items)
    patch_item = _awaited(calls.patch_item)
    delete_item = _awaited(calls.delete_item)
    events_page = _awaited(calls.events_page)
    models = _awaited(calls.models)
    experiments = _awaited(calls.experiments)
    online_metrics = _awaited(calls.online_metrics)
    ready = _awaited(calls.ready)
    request = _awaited(calls.request)

    async def export_events(self, *, users_a_page: int = 100) -> AsyncIterator[dict[str, Any]]:
        """Every retained event of the tenant, users by id, read page by page."""
        after: str | None = ""
        while after is not None:
            page = await self.events_page(after=after, users=users_a_page)
            for event in page.events:
                yield event
            after = page.next_after

    async def send(self, call: Call[AnswerT]) -> AnswerT:
        """Sends a call of `calls`, again where that helps; gives its answer."""
        request, sent = self._connection.request(call), 0
        while True:
            sent += 1
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            wait_s = self._connection.retries.wait_s(outcome, sent=sent)
            if wait_s is None:
                return answer_of(call, outcome)
            await asyncio.sleep(wait_s)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
