"""The routes over HTTP, without a server: answers, errors and their texts."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from raymeta.errors import RaymetaError
from raymeta.serve.problems import ERROR_STATUS
from raymeta.serve.service import Service
from tests.unit.serve.conftest import ITEM_IDS, NOW_MS

Call = Callable[..., httpx.Response]


def purchase(item_id: str, **values: Any) -> dict[str, Any]:
    return {"item_id": item_id, "event_type": "purchase", **values}


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def test_an_unknown_user_gets_the_prior(call: Call) -> None:
    response = call("POST", "/v1/recommend", json={"user_id": "new", "n": 3})
    body = response.json()
    assert ids(response) == ["item0", "item1", "item2"]
    assert (body["fallback"], body["state_version"], body["n_support"]) == ("prior", 0, 0)
    assert all(item["score"] == item["prior_score"] for item in body["items"])
    assert response.headers["cache-control"] == "no-store"


def test_each_acknowledged_event_is_in_the_next_answer(call: Call) -> None:
    for number, item in enumerate(["item2", "item4", "item4"], start=1):
        added = call("POST", "/v1/events", json={"user_id": "u", "events": [purchase(item)]}).json()
        answer = call("POST", "/v1/recommend", json={"user_id": "u", "n": 2}).json()
        assert (added["accepted"], added["duplicates"], added["durable"]) == (1, 0, False)
        assert added["state_version"] == number
        assert (answer["state_version"], answer["n_support"]) == (number, number)
        assert answer["fallback"] is None
    assert [item["id"] for item in answer["items"]] == ["item5", "item3"]
    assert answer["items"][0]["score"] == pytest.approx(answer["items"][0]["prior_score"] + 2)


def test_events_in_the_request_count_in_its_answer_and_stay(call: Call) -> None:
    first = call(
        "POST",
        "/v1/recommend",
        json={"user_id": "u", "n": 1, "events": [purchase("item3", event_id="e")]},
    )
    again = call(
        "POST",
        "/v1/recommend",
        json={"user_id": "u", "n": 1, "events": [purchase("item3", event_id="e")]},
    )
    assert ids(first) == ids(again) == ["item4"]
    assert first.json()["events"] == {"accepted": 1, "duplicates": 0, "erased": 0}
    assert again.json()["events"] == {"accepted": 0, "duplicates": 1, "erased": 0}
    assert again.json()["state_version"] == first.json()["state_version"] == 1


def test_seen_and_excluded_items_are_left_out(call: Call) -> None:
    call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("item0")]})
    request = {"user_id": "u", "n": 20, "exclude": ["item2", "no such item"]}
    assert set(ids(call("POST", "/v1/recommend", json=request))) == {*ITEM_IDS} - {"item0", "item2"}
    kept = call("POST", "/v1/recommend", json=request | {"exclude_seen": False})
    assert set(ids(kept)) == {*ITEM_IDS} - {"item2"}


def test_a_query_parameter_given_twice_is_refused(call: Call) -> None:
    told = problem(call("GET", "/v1/export/events?users=1&users=2"), 422)
    assert "'users' is given 2 times" in told["detail"]


def test_an_unknown_item_is_kept_but_does_not_adapt(call: Call) -> None:
    call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("brand new")]})
    state = call("GET", "/v1/users/u/state").json()
    answer = call("POST", "/v1/recommend", json={"user_id": "u"}).json()
    assert (state["n_events"], state["n_support"], state["n_seen_items"]) == (1, 0, 1)
    assert (answer["fallback"], answer["state_version"]) == ("prior", 1)


def test_the_state_of_a_user_whose_id_has_slashes(call: Call) -> None:
    call("POST", "/v1/events", json={"user_id": "a/b c", "events": [purchase("item1")]})
    state = call("GET", "/v1/users/a%2Fb%20c/state").json()
    assert state["user_id"] == "a/b c"
    assert state["last_event_ms"] == NOW_MS
    assert state["model_version"] == "small-1"


@pytest.mark.parametrize("timestamp", [1_600_000_000_000, "2020-09-13T14:26:40+02:00"])
def test_timestamps_are_milliseconds_or_iso(call: Call, timestamp: object) -> None:
    event = purchase("item1", timestamp=timestamp)
    call("POST", "/v1/events", json={"user_id": "u", "events": [event]})
    assert call("GET", "/v1/users/u/state").json()["last_event_ms"] == 1_600_000_000_000


def test_an_unknown_user_has_no_state(call: Call) -> None:
    body = problem(call("GET", "/v1/users/nobody/state"), 404)
    assert body["detail"].startswith("There are no events of user 'nobody' in tenant 'default'.")


@pytest.mark.parametrize(
    ("change", "field", "text"),
    [
        ({"user_id": ""}, "user_id", "at least 1 character"),
        ({"user_id": "u" * 300}, "user_id", "at most 256 characters"),
        ({"user_id": 7}, "user_id", "valid string"),
        ({"events": []}, "events", "at least 1 item"),
        ({"surprise": 1}, "surprise", "not a key that this request has"),
        ({"events": [{"event_type": "purchase"}]}, "events.0", "item_id is missing"),
        ({"events": [purchase("nul \0")]}, "events.0.item_id", "should match pattern"),
        ({"events": [purchase("i", value="a lot")]}, "events.0.value", "valid number"),
        ({"events": [purchase("i", position=-1)]}, "events.0.position", "greater than or equal"),
        ({"events": [purchase("i", propensity=0)]}, "events.0.propensity", "greater than 0"),
        ({"events": [purchase("i", timestamp="today")]}, "events.0.timestamp", "ISO-8601"),
        ({"events": [purchase("i", timestamp="2026-01-01")]}, "events.0.timestamp", "time zone"),
        ({"events": [purchase("i", timestamp=-1)]}, "events.0.timestamp", "greater than or equal"),
        ({"events": [purchase("i", timestamp=1.5)]}, "events.0.timestamp", "valid integer"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    call: Call, change: dict[str, Any], field: str, text: str
) -> None:
    request = {"user_id": "u", "events": [purchase("item1")]} | change
    body = problem(call("POST", "/v1/events", json=request), 422)
    assert body["errors"][0]["field"] == field
    assert text in body["errors"][0]["message"]
    assert field in body["detail"]


@pytest.mark.parametrize(
    ("path", "request_body", "text"),
    [
        (
            "/v1/events",
            {"user_id": "u", "events": [purchase("a"), {"item_id": "b", "event_type": "purchse"}]},
            "events.1.event_type is 'purchse', which no model knows. Use one of: cart,",
        ),
        (
            "/v1/events",
            {"user_id": "u", "events": [purchase("a", timestamp=NOW_MS + 86_401_000)]},
            "events.0.timestamp is 1700086401000 ms, 86401 s after the server's clock.",
        ),
        ("/v1/events", {"user_id": "u", "events": [purchase("a")] * 6}, "events is 6; at most 5"),
        ("/v1/recommend", {"user_id": "u", "n": 21}, "n is 21; at most 20"),
        ("/v1/recommend", {"user_id": "u", "variant": "b"}, "no variant 'b'. Use one of: default."),
        ("/v1/recommend", {"user_id": "u", "tenant": "t"}, "There is no tenant 't'."),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_whole(
    call: Call, path: str, request_body: dict[str, Any], text: str
) -> None:
    assert text in problem(call("POST", path, json=request_body), 422)["detail"]
    problem(call("GET", "/v1/users/u/state"), 404)


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b'{"user_id": "u", ', 400, "The body is not JSON"),
        (b'{"user_id": "\xe9"}', 400, "cannot be read as JSON in UTF-8"),
        (b"[" * 4000, 400, "JSON"),
        (b'{"user_id": "\\ud800"}', 422, "user_id"),
        (b"[]", 422, "valid dictionary"),
        (b"", 422, "body: is missing"),
        (b'{"user_id": "u", "n": NaN}', 422, "n:"),
        (json.dumps({"user_id": "u" * 5000}).encode(), 413, "more than 4096 bytes"),
    ],
)
def test_a_body_that_is_no_request(call: Call, content: bytes, status: int, text: str) -> None:
    headers = {"Content-Type": "application/json"}
    body = problem(call("POST", "/v1/recommend", content=content, headers=headers), status)
    assert text in body["detail"]


def test_a_long_body_without_a_length_is_cut_off(call: Call) -> None:
    async def chunks() -> Any:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    problem(call("POST", "/v1/recommend", content=chunks(), headers=headers), 413)


def test_a_body_of_another_type_is_refused(call: Call) -> None:
    headers = {"Content-Type": "text/plain"}
    body = problem(call("POST", "/v1/recommend", content=b'{"user_id":"u"}', headers=headers), 415)
    assert body["detail"] == "The Content-Type is 'text/plain'. Send application/json."


def test_the_examples_in_the_description_are_taken(call: Call) -> None:
    described = call("GET", "/openapi.json").json()
    schemas = described["components"]["schemas"]
    tried = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            reference = (
                operation.get("requestBody", {})
                .get("content", {})
                .get("application/json", {})
                .get("schema", {})
                .get("$ref", "")
            )
            for example in schemas.get(reference.rpartition("/")[2], {}).get("examples", []):
                url = path.replace("{user_id}", "ann").replace("{item_id}", "item1")
                response = call(method.upper(), url, json=example)
                expected = 422 if url == "/v1/predict" else 200  # no head of the model predicts
                assert response.status_code == expected, (url, example, response.text)
                tried += 1
    assert tried >= 10


def test_wrong_paths_and_methods(call: Call) -> None:
    assert "/nowhere" in problem(call("GET", "/nowhere"), 404)["detail"]
    assert "GET is not what /v1/events takes" in problem(call("GET", "/v1/events"), 405)["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/users/u", "DELETE, GET, PATCH, PUT"),
        ("PUT", "/v1/users/u/state", "GET"),
        ("DELETE", "/v1/users/u/export", "GET"),
        ("GET", "/v1/recommend", "POST"),
    ],
)
def test_a_method_that_a_path_does_not_take(
    call: Call, method: str, path: str, allowed: str
) -> None:
    response = call(method, path, json={"features": {}})
    problem(response, 405)
    assert response.headers["allow"] == allowed
    problem(call("GET", "/v1/users/u/state"), 404)


def test_a_given_request_id_comes_back_and_a_strange_one_does_not(call: Call) -> None:
    assert (
        call("GET", "/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"]
        == "abc-1"
    )
    strange = call("GET", "/healthz", headers={"X-Request-ID": "a b{}"}).headers["x-request-id"]
    assert len(strange) == 32


def test_health_and_readiness(call: Call, service: Service) -> None:
    assert call("GET", "/healthz").json() == {"status": "ok"}
    assert call("GET", "/readyz").json() == {
        "status": "ready",
        "models": {"default": {"default": "small-1"}, "other": {"default": "small-1"}},
    }
    service.use({})
    for response in (
        call("GET", "/readyz"),
        call("POST", "/v1/recommend", json={"user_id": "u"}),
    ):
        assert "No model is loaded" in problem(response, 503)["detail"]
        assert response.headers["retry-after"] == "1"
    assert call("GET", "/healthz").status_code == 200


def test_an_unforeseen_error_tells_the_caller_nothing(
    call: Call, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(service.answers, "recommend", fail)
    response = call("POST", "/v1/recommend", json={"user_id": "u"})
    assert "secret" not in response.text
    problem(response, 500)


def test_the_api_describes_itself(call: Call) -> None:
    paths = call("GET", "/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/events",
        "/v1/export/events",
        "/v1/recommend",
        "/v1/rank",
        "/v1/predict",
        "/v1/session/recommend",
        "/v1/users/{user_id}",
        "/v1/users/{user_id}/export",
        "/v1/users/{user_id}/state",
        "/v1/items/{item_id}",
        "/v1/items:batch",
        "/v1/models",
        "/v1/experiments",
        "/v1/metrics/online",
        "/healthz",
        "/readyz",
    }


def test_every_error_of_the_tree_has_a_status() -> None:
    pending, kinds = [RaymetaError], []
    while pending:
        kind = pending.pop()
        kinds.append(kind)
        pending += kind.__subclasses__()
    for kind in kinds:
        fitting = [status for row, status in ERROR_STATUS if issubclass(kind, row)]
        assert fitting, kind
