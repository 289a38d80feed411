"""When a request is sent again, and what a retry may never do: count an event twice."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymeta.client import AsyncClient, Client, Event, Retries
from raymeta.errors import InvalidRequestError, RateLimitError, ServiceError
from raymeta.serve.ingress import create_app
from raymeta.serve.service import Service

AT_ONCE = Retries(attempts=3, first_wait_s=0.0)
PROBLEM = {"title": "T", "status": 500, "detail": "It failed.", "request_id": "r1"}


def problem(status: int, **headers: str) -> httpx.Response:
    kind = {"content-type": "application/problem+json"}
    return httpx.Response(status, json={**PROBLEM, "status": status}, headers=kind | headers)


@given(st.integers(1, 20), st.floats(0, 3), st.integers(0, 5), st.integers(0, 2**32))
def test_the_wait_lies_between_what_is_asked_for_and_the_backoff(
    sent: int, first_wait_s: float, asked_s: int, seed: int
) -> None:
    retries = Retries(attempts=21, first_wait_s=first_wait_s, draws=random.Random(seed))
    answer = httpx.Response(503, headers={"retry-after": str(asked_s)})
    wait_s = retries.wait_s(answer, sent=sent)
    assert wait_s is not None
    assert asked_s <= wait_s <= asked_s + min(5.0, first_wait_s * 2.0 ** (sent - 1))


def test_the_backoff_doubles_and_is_drawn() -> None:
    retries = Retries(attempts=9, first_wait_s=1.0, max_wait_s=100.0, draws=random.Random(0))
    lost = httpx.ReadError("lost")
    for sent in (1, 3, 5):
        waits = [retries.wait_s(lost, sent=sent) or 0.0 for _ in range(2000)]
        longest = 2.0 ** (sent - 1)
        assert max(waits) == pytest.approx(longest, rel=0.01)
        assert sum(waits) / len(waits) == pytest.approx(longest / 2, rel=0.05)


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("late"), True),
        (problem(429), True),
        (problem(503), True),
        (problem(408), True),
        (httpx.Response(502, text="Bad Gateway"), True),
        (httpx.Response(500, text="the replica died"), True),
        (problem(500), False),
        (problem(409), False),
        (problem(422), False),
        (httpx.Response(200, json={}), False),
    ],
)
def test_what_may_pass_is_tried_again(
    outcome: httpx.Response | httpx.TransportError, again: bool
) -> None:
    assert (Retries().wait_s(outcome, sent=1) is not None) is again
    assert Retries().wait_s(outcome, sent=4) is None


def test_nobody_waits_for_longer_than_the_longest_wait() -> None:
    def busy(request: httpx.Request) -> httpx.Response:
        return problem(429, **{"retry-after": "60"})

    with (
        Client("http://test", transport=httpx.MockTransport(busy)) as client,
        pytest.raises(RateLimitError, match=r"It failed\.") as caught,
    ):
        client.ready()
    assert caught.value.retry_after_s == 60.0


class Unreliable(httpx.AsyncBaseTransport):
    """Reaches the application, and fails `failures` times: before it, after it, or with a 503."""

    def __init__(self, service: Service, how: str, failures: int) -> None:
        self._inner = httpx.ASGITransport(app=create_app(service))
        self._how, self.left = how, failures
        self.keys: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("idempotency-key", ""))
        fails, self.left = self.left > 0, self.left - 1
        if fails and self._how == "before":
            raise httpx.ConnectError("refused", request=request)
        response = await self._inner.handle_async_request(request)
        if fails and self._how == "after":
            raise httpx.ReadError("the answer was lost", request=request)
        if fails:
            return httpx.Response(503, headers={"retry-after": "0"}, request=request)
        return response


def asked(
    service: Service, how: str, failures: int, ask: Callable[[AsyncClient], Any]
) -> tuple[Any, Unreliable]:
    transport = Unreliable(service, how, failures)

    async def run() -> Any:
        async with AsyncClient("http://test", transport=transport, retries=AT_ONCE) as client:
            return await ask(client)

    return asyncio.run(run()), transport


@pytest.mark.parametrize("how", ["before", "after", "503"])
@pytest.mark.parametrize("route", ["events", "recommend", "rank"])
def test_a_retry_never_counts_an_event_twice(service: Service, how: str, route: str) -> None:
    bought = Event(item_id="item2", event_type="purchase")

    def ask(client: AsyncClient) -> Any:
        if route == "events":
            return client.events("u", [bought])
        if route == "recommend":
            return client.recommend("u", n=1, events=[bought])
        return client.rank("u", ["item1", "item3"], events=[bought])

    answer, transport = asked(service, how, 2, ask)
    assert len(transport.keys) == 3
    assert len(set(transport.keys)) == 1
    assert transport.keys[0]
    assert (answer if route == "events" else answer.events).accepted == 1
    state, _ = asked(service, how, 0, lambda client: client.user_state("u"))
    assert state.n_events == state.n_support == 1
    # the same call made again is another event: it has another key
    asked(service, how, 0, ask)
    state, _ = asked(service, how, 0, lambda client: client.user_state("u"))
    assert state.n_events == 2


def test_a_key_of_the_callers_holds_over_calls(service: Service) -> None:
    bought = Event(item_id="item2", event_type="purchase")
    for _ in range(2):
        asked(service, "after", 1, lambda c: c.events("u", [bought], idempotency_key="order-1"))
    state, _ = asked(service, "after", 0, lambda client: client.user_state("u"))
    assert state.n_events == 1


def test_it_gives_up_and_says_why(service: Service) -> None:
    with pytest.raises(ServiceError, match=r"No service answers at http://test/: refused"):
        asked(service, "before", 3, lambda client: client.ready())


def test_what_is_refused_is_sent_once(service: Service) -> None:
    seen = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return problem(422)

    client = Client("http://test", transport=httpx.MockTransport(refuse), retries=AT_ONCE)
    with client, pytest.raises(InvalidRequestError) as caught:
        client.recommend("ann")
    assert len(seen) == 1
    assert caught.value.__notes__ == ["request id r1"]
