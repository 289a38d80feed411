"""What requests do to the service's numbers, and what its log says of them."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from raymeta.errors import StoreError
from raymeta.observability import logs
from raymeta.observability.metrics import METRICS, MODEL_LOADED, REQUEST_SECONDS, Meter, Metric
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import UserVersion
from raymeta.serve.user_events.memory import MemoryEventStore
from tests.unit.serve.conftest import caller
from tests.unit.serve.test_access import KEYS, as_key
from tests.unit.serve.test_ingress import purchase

Call = Callable[..., httpx.Response]
Moved = dict[tuple[str, ...], float]


def moved(service: Service, *acts: Callable[[], object]) -> Moved:
    """(metric without its prefix, labels...) -> by how much the acts moved it."""
    before = {metric.name: dict(service.meter.series(metric)) for metric in METRICS}
    for act in acts:
        act()
    return {
        (metric.name.removeprefix("raymeta_"), *labels): value - earlier
        for metric in METRICS
        for labels, value in service.meter.series(metric)
        if value != (earlier := before[metric.name].get(labels, 0.0))
    }


def test_an_answer_is_counted_where_it_was_made(service: Service, call: Call) -> None:
    event = purchase("item2", event_id="e")
    events = {"user_id": "u", "events": [event]}

    def ask() -> httpx.Response:
        return call("POST", "/v1/recommend", json={"user_id": "u", "n": 2})

    found = moved(
        service, lambda: call("POST", "/v1/events", json=events), lambda: ask(), lambda: ask()
    )
    assert found == {
        ("request_seconds", "/v1/events", "200"): 1,
        ("request_seconds", "/v1/recommend", "200"): 2,
        ("store_seconds", "append", "ok"): 1,
        ("store_seconds", "version", "ok"): 2,
        ("store_seconds", "read", "ok"): 1,
        ("user_events",): 1,
        ("events", "accepted"): 1,
        ("state_lookups", "miss"): 1,
        ("state_lookups", "hit"): 1,
        ("adapt_seconds",): 1,
        ("batch_users",): 1,
        ("score_seconds",): 2,
        ("user_state_bytes",): 1,
        ("answers", "default", "default", "none"): 2,
    }
    again = moved(service, lambda: call("POST", "/v1/events", json=events))
    assert again["events", "duplicate"] == 1
    assert ("events", "accepted") not in again


def test_what_keeps_an_answer_from_being_adapted_is_counted_by_its_kind(
    service: Service, call: Call
) -> None:
    new = moved(service, lambda: call("POST", "/v1/recommend", json={"user_id": "new"}))
    assert new["answers", "default", "default", "prior"] == 1
    # the artifact of these tests cannot adapt to item6
    poisoned = {"user_id": "p", "events": [purchase("item6")]}
    failed = moved(service, lambda: call("POST", "/v1/recommend", json=poisoned))
    assert failed["answers", "default", "default", "adaptation"] == 1


class Unreachable(MemoryEventStore):
    async def version(self, tenant: str, user_id: str) -> UserVersion:
        raise StoreError("It is down.", remedy="Wait.")


def test_a_store_that_is_down_shows(make_service: Callable[..., Service]) -> None:
    from raymeta.serve.user_events.base import Retention

    service = make_service(of=Unreachable(retention=Retention(events=100)))
    call = caller(service)
    found = moved(service, lambda: call("POST", "/v1/recommend", json={"user_id": "u"}))
    assert found["store_seconds", "version", "error"] == 1
    assert found["answers", "default", "default", "store"] == 1
    assert found["request_seconds", "/v1/recommend", "200"] == 1


def test_errors_are_counted_by_kind_and_paths_by_their_pattern(
    service: Service, call: Call
) -> None:
    found = moved(
        service,
        lambda: call("GET", "/v1/users/ann/state"),
        lambda: call("POST", "/v1/recommend", json={"user_id": 7}),
        lambda: call("GET", "/of-nobody"),
        lambda: call("POST", "/v1/events", content=b"x" * 5000),
    )
    assert found["errors", "UnknownUserError", "404"] == 1
    assert found["errors", "RequestValidationError", "422"] == 1
    assert found["errors", "HTTPException", "404"] == 1
    assert found["errors", "body_too_large", "413"] == 1
    assert found["request_seconds", "/v1/users/{user_id:path}/state", "404"] == 1
    assert found["request_seconds", "unmatched", "404"] == 1


def test_a_changed_catalogue_is_timed_and_the_models_are_told(service: Service, call: Call) -> None:
    body = {"features": {"category": "red", "price": 3}}
    found = moved(
        service,
        lambda: call("PUT", "/v1/items/new", json=body),
        lambda: call("POST", "/v1/recommend", json={"user_id": "u"}),
    )
    assert found["catalogue_refresh_seconds", "default"] == 1
    info = {m.name: dict(service.meter.series(m)) for m in METRICS}["raymeta_model_info"]
    assert info == {("default", "default", "small-1"): 1, ("other", "default", "small-1"): 1}


def test_no_request_is_left_in_progress(service: Service, call: Call) -> None:
    from raymeta.observability.metrics import REQUESTS_IN_PROGRESS

    call("GET", "/healthz")
    call("GET", "/of-nobody")
    assert service.meter.value(REQUESTS_IN_PROGRESS) == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_says_its_unit_and_what_it_is(metric: Metric) -> None:
    assert re.fullmatch(r"raymeta_[a-z_]+[a-z]", metric.name)
    assert metric.help.endswith(".")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    if metric.buckets and metric.buckets[0] < 1:
        assert metric.name.endswith("_seconds")
    assert len({m.name for m in METRICS}) == len(METRICS)


def test_a_meter_hands_each_record_to_its_sink() -> None:
    class Sink:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
            self.got.append(("add", metric.name, labels, value))

        set = observe = add

    sink = Sink()
    meter = Meter(sink)
    meter.observe(REQUEST_SECONDS, 0.003, "/x", "200")
    assert sink.got == [("add", "raymeta_request_seconds", ("/x", "200"), 0.003)]
    assert meter.value(REQUEST_SECONDS, "/x", "200") == 1


# --- its log


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Any:
    """Configures JSON lines at a level; called again, it gives those that were written."""

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    logs.configure(logs.Level.INFO, logs.Format.JSON)
    yield lines
    logs.remove()


def test_a_request_is_one_line_with_its_id_and_nothing_of_the_user(
    make_service: Callable[..., Service], log: Callable[[], list[dict[str, Any]]]
) -> None:
    call = caller(make_service(keys=KEYS))
    headers = {**as_key("all"), "X-Request-Id": "given-1"}
    body = {"user_id": "ann", "events": [purchase("item2", query="shoes")]}
    call("POST", "/v1/recommend", json=body, headers=headers)
    made = call("GET", "/v1/users/ann/state", headers=as_key("all"))
    refused = call("GET", "/v1/users/ann/state", headers=as_key("a-secret"))
    lines = [line for line in log() if line["message"] == "request"]
    assert [(line["route"], line["status"], line["caller"]) for line in lines] == [
        ("/v1/recommend", 200, "all"),
        ("/v1/users/{user_id:path}/state", 200, "all"),
        ("/v1/users/{user_id:path}/state", 401, None),
    ]
    assert lines[0]["request_id"] == "given-1"
    assert lines[1]["request_id"] == made.headers["x-request-id"]
    assert lines[2]["request_id"] == refused.json()["request_id"]
    assert all(line["took_ms"] > 0 and line["level"] == "info" for line in lines)
    written = json.dumps(lines)
    for secret in ("ann", "item2", "shoes", "a-secret"):
        assert secret not in written


def test_a_failure_is_logged_with_the_id_that_its_caller_got(
    make_service: Callable[..., Service], log: Callable[[], list[dict[str, Any]]]
) -> None:
    service = make_service()

    async def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    service.answers.recommend = fail  # type: ignore[method-assign, assignment]
    answer = caller(service)("POST", "/v1/recommend", json={"user_id": "u"})
    assert answer.status_code == 500
    (line,) = [line for line in log() if line["level"] == "error"]
    assert line["request_id"] == answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in line["traceback"]
    assert ("errors", "ZeroDivisionError", "500") in moved(
        service, lambda: caller(service)("POST", "/v1/recommend", json={"user_id": "u"})
    )


def test_at_the_default_level_an_answer_writes_nothing(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(logs.Level.WARNING, logs.Format.JSON)
    call("POST", "/v1/recommend", json={"user_id": "u"})
    logs.remove()
    assert capsys.readouterr().err == ""


def test_many_at_once_are_one_batch(service: Service) -> None:
    from raymeta.serve.schemas.recommend import RecommendRequest

    async def ask() -> None:
        asked = [
            RecommendRequest(user_id=f"u{n}", events=[purchase("item2")])  # type: ignore[list-item]
            for n in range(4)
        ]
        await asyncio.gather(*(service.answers.recommend(one) for one in asked))

    found = moved(service, lambda: asyncio.run(ask()))
    assert found["answers", "default", "default", "none"] == 4
    assert found["batch_users",] < 4


def test_gauges_that_nothing_changes_are_told_again(service: Service) -> None:
    told: list[tuple[str, float]] = []

    class Sink:
        def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None: ...

        def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None: ...

        def set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
            told.append((metric.name, value))

    loaded_at = service.meter.value(MODEL_LOADED)
    service.meter.sink = Sink()
    service.tell_sizes()
    assert told.count(("raymeta_model_info", 1)) == 2
    assert ("raymeta_models_loaded_timestamp_seconds", loaded_at) in told
