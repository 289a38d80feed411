"""Bounds of a request: rates, deadlines, and a store that is slow or down."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from raymeta.errors import RateLimitError, StoreError
from raymeta.serve.guard import FAILURES_TO_OPEN, StoreGuard
from raymeta.serve.rate_limits import RateLimit
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import EventStore
from tests.unit.serve.conftest import caller
from tests.unit.serve.test_access import KEYS, as_key
from tests.unit.serve.test_ingress import ids, problem, purchase


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# --- rates


def test_a_bucket_fills_with_time_and_holds_a_burst() -> None:
    clock = Seconds()
    rate = RateLimit("things", per_s=2.0, burst_s=2.0, clock=clock)
    for _ in range(4):
        rate.take("a")
    with pytest.raises(RateLimitError, match="too many things: 2 a second") as caught:
        rate.take("a")
    assert caught.value.retry_after_s == pytest.approx(0.5)
    rate.take("b")
    clock.now += 0.5
    rate.take("a")
    clock.now += 100.0
    for _ in range(4):
        rate.take("a")
    with pytest.raises(RateLimitError):
        rate.take("a")


def test_more_than_a_bucket_holds_is_owed() -> None:
    clock = Seconds()
    rate = RateLimit("things", per_s=1.0, burst_s=5.0, clock=clock)
    rate.take("a", 10)
    clock.now += 5.0
    with pytest.raises(RateLimitError):
        rate.take("a")
    clock.now += 1.0
    rate.take("a")


def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    make_service: Callable[..., Service],
) -> None:
    call = caller(make_service(keys=KEYS, requests_per_s_per_key=0.5, burst_s=2.0))
    body = {"user_id": "u"}
    assert call("POST", "/v1/recommend", json=body, headers=as_key("both")).status_code == 200
    response = call("POST", "/v1/recommend", json=body, headers=as_key("both"))
    problem(response, 429)
    assert response.headers["retry-after"] == "2"
    assert call("POST", "/v1/recommend", json=body, headers=as_key("all")).status_code == 200
    assert call("GET", "/healthz").status_code == 200


def test_a_user_with_too_many_events_is_refused_and_others_are_not(
    make_service: Callable[..., Service],
) -> None:
    call = caller(make_service(events_per_s_per_user=0.1, burst_s=20.0))

    def send(user: str) -> httpx.Response:
        body = {"user_id": user, "events": [purchase("item1"), purchase("item2")]}
        return call("POST", "/v1/events", json=body)

    assert send("u").status_code == 200
    problem(send("u"), 429)
    assert send("v").status_code == 200
    assert call("GET", "/v1/users/u").json()["n_events"] == 2


# --- a store that is slow or down


class Faulty:
    """A store whose calls fail, or take their time, when told to."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.failing = False
        self.delay_s = 0.0
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value) or name == "close":
            return value

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            await asyncio.sleep(self.delay_s)
            if self.failing:
                raise StoreError("The event store failed: gone.", remedy="Send again.")
            return await value(*arguments, **options)

        return call


@pytest.fixture
def faulty(store: EventStore) -> Faulty:
    return Faulty(store)


@pytest.fixture
def call(faulty: Faulty, make_service: Callable[..., Service]) -> Callable[..., httpx.Response]:
    return caller(make_service(of=faulty, deadline_s=0.5, store_read_timeout_s=0.1))


def test_while_the_store_is_down_reads_are_for_anybody_and_writes_are_refused(
    call: Callable[..., httpx.Response], faulty: Faulty
) -> None:
    events = {"user_id": "u", "events": [purchase("item2", event_id="1")]}
    call("POST", "/v1/events", json=events)
    faulty.failing = True
    answer = call("POST", "/v1/recommend", json={"user_id": "u", "n": 1})
    assert ids(answer) == ["item0"]
    assert (answer.json()["fallback"], answer.json()["state_version"]) == ("store", 0)
    for path, body in (
        ("/v1/events", events),
        ("/v1/recommend", {**events, "n": 1}),
    ):
        response = call("POST", path, json=body)
        assert "event store failed" in problem(response, 503)["detail"]
        assert response.headers["retry-after"] == "1"
    problem(call("GET", "/readyz"), 503)
    problem(call("GET", "/v1/users/u/state"), 503)
    assert call("GET", "/healthz").status_code == 200

    faulty.failing = False
    back = call("POST", "/v1/recommend", json={"user_id": "u", "n": 1})
    assert (ids(back), back.json()["fallback"]) == (["item3"], None)


def test_a_slow_store_makes_reads_for_anybody_in_time(
    call: Callable[..., httpx.Response], faulty: Faulty
) -> None:
    faulty.delay_s = 0.2
    started = time.monotonic()
    answer = call("POST", "/v1/recommend", json={"user_id": "u", "n": 1})
    assert answer.json()["fallback"] == "store"
    assert time.monotonic() - started < 0.2
    added = call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("item2")]})
    assert added.json()["accepted"] == 1


def test_a_request_beyond_its_deadline_says_what_may_have_happened(
    call: Callable[..., httpx.Response], faulty: Faulty
) -> None:
    faulty.delay_s = 2.0
    response = call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("item2")]})
    assert "longer than 0.5 s. Events may have been kept or not" in problem(response, 408)["detail"]


def test_a_store_that_keeps_failing_is_not_asked_by_everybody() -> None:
    clock = Seconds()
    guard = StoreGuard(timeout_s=1.0, clock=clock)
    tried = 0

    async def fail() -> None:
        nonlocal tried
        tried += 1
        raise StoreError("gone")

    async def succeed() -> str:
        nonlocal tried
        tried += 1
        return "back"

    def read(work: Callable[[], Any]) -> Any:
        return asyncio.run(guard.read(work))

    for _ in range(FAILURES_TO_OPEN + 4):
        with pytest.raises(StoreError):
            read(fail)
    assert tried == FAILURES_TO_OPEN
    clock.now += 1.0
    with pytest.raises(StoreError, match="gone"):
        read(fail)
    with pytest.raises(StoreError, match="does not answer"):
        read(succeed)
    assert tried == FAILURES_TO_OPEN + 1
    clock.now += 1.0
    assert read(succeed) == "back"
    assert read(succeed) == "back"


def test_memory_is_swept_with_the_store(make_service: Callable[..., Service], clock: Any) -> None:
    service = make_service()
    call = caller(service)
    call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("item2")]})
    call("POST", "/v1/recommend", json={"user_id": "u"})
    assert len(service.states) == 1
    clock.advance(3_600_001)
    asyncio.run(service.maintain())
    assert len(service.states) == 0


def test_who_has_not_asked_for_long_is_forgotten_and_owes_what_was_owed() -> None:
    now = 0.0
    rate = RateLimit("things", per_s=1.0, burst_s=5.0, clock=lambda: now)
    for user in range(1_000):
        now = float(user)
        rate.take(user)
    # a bucket of five is full again a second after one was taken: nearly all are as good as none
    assert len(rate) <= 3
    rate.take("busy", 5)
    with pytest.raises(RateLimitError):
        rate.take("busy")
    now += 2.0
    rate.take("other")
    rate.take("busy", 2)
    with pytest.raises(RateLimitError):
        rate.take("busy")
