"""Users over HTTP: features, read-back, export, erasure, and requests sent again."""

from collections.abc import Callable

import httpx
import pytest

from raymeta.serve.service import Service
from tests.helpers.clocks import Clock
from tests.unit.serve.conftest import NOW_MS, caller
from tests.unit.serve.test_ingress import ids, problem, purchase

Call = Callable[..., httpx.Response]


def send(call: Call, *events: dict[str, object], key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return call("POST", "/v1/events", json={"user_id": "u", "events": events}, headers=headers)


def test_features_are_put_patched_and_read_back(call: Call) -> None:
    put = call("PUT", "/v1/users/a%2Fb", json={"features": {"age": 30, "country": "DE"}})
    assert put.json()["features"] == {"age": 30, "country": "DE"}
    patched = call("PATCH", "/v1/users/a%2Fb", json={"features": {"age": None, "vip": True}})
    assert patched.json()["state_version"] == 2
    assert call("GET", "/v1/users/a%2Fb").json() == {
        "user_id": "a/b",
        "tenant": "default",
        "features": {"country": "DE", "vip": True},
        "state_version": 2,
        "n_events": 0,
        "generation": 0,
    }


def test_features_that_are_too_large_are_refused(make_service: Callable[..., Service]) -> None:
    call = caller(make_service(max_feature_bytes=20))
    response = call("PUT", "/v1/users/u", json={"features": {"story": "once upon a time"}})
    assert "features takes" in problem(response, 422)["detail"]


def test_the_state_says_what_the_model_makes_of_a_user(call: Call) -> None:
    send(call, purchase("item1"), purchase("nowhere"))
    state = call("GET", "/v1/users/u/state").json()
    assert (state["n_events"], state["n_retained"], state["n_support"]) == (2, 2, 1)
    assert state["state_bytes"] == 8 * 4


def test_everything_that_is_stored_can_be_had(call: Call) -> None:
    call("PUT", "/v1/users/u", json={"features": {"age": 3}})
    send(call, purchase("item1", event_id="e", value=2.5, timestamp=9))
    exported = call("GET", "/v1/users/u/export").json()
    assert exported["features"] == {"age": 3}
    assert exported["seen_items"] == ["item1"]
    assert exported["events"] == [
        {
            "event_id": "e",
            "item_id": "item1",
            "event_type": "purchase",
            "timestamp_ms": 9,
            "value": 2.5,
            "timestamp_given": True,
        }
    ]
    problem(call("GET", "/v1/users/nobody/export"), 404)


def test_an_erased_user_is_nobody_and_events_of_before_stay_out(call: Call, clock: Clock) -> None:
    send(call, purchase("item2", event_id="1"), purchase("item4", event_id="2"))
    before = call("POST", "/v1/recommend", json={"user_id": "u", "n": 1})
    clock.advance(10)
    receipt = call("DELETE", "/v1/users/u").json()
    assert ids(before) == ["item3"]
    assert (receipt["events_erased"], receipt["generation"]) == (2, 1)
    assert receipt["erased_at_ms"] == NOW_MS + 10
    assert "90 days" in receipt["remains"]

    after = call("POST", "/v1/recommend", json={"user_id": "u", "n": 9}).json()
    assert after["fallback"] == "prior"
    assert len(after["items"]) == 8  # nothing counts as seen
    for path in ("/v1/users/u", "/v1/users/u/state", "/v1/users/u/export"):
        problem(call("GET", path), 404)

    clock.advance(10)
    late = send(call, purchase("item2", event_id="1"), purchase("item5", timestamp=NOW_MS)).json()
    assert (late["accepted"], late["duplicates"], late["erased"]) == (0, 1, 1)
    anew = send(call, purchase("item5", event_id="3")).json()
    assert anew["accepted"] == 1
    assert anew["state_version"] > before.json()["state_version"]
    assert call("GET", "/v1/users/u").json()["generation"] == 1


def test_erasing_forgets_the_state_in_memory(call: Call, service: Service, clock: Clock) -> None:
    send(call, purchase("item2"))
    call("POST", "/v1/recommend", json={"user_id": "u"})
    assert len(service.states) == 1
    call("DELETE", "/v1/users/u")
    assert len(service.states) == 0


def test_an_event_id_with_another_body_is_refused_with_all_beside_it(call: Call) -> None:
    send(call, purchase("item1", event_id="e"))
    body = problem(
        send(call, purchase("item2", event_id="new"), purchase("item2", event_id="e")), 409
    )
    assert "event_id 'e' was used before" in body["detail"]
    assert call("GET", "/v1/users/u").json()["n_events"] == 1
    assert send(call, purchase("item1", event_id="e")).json()["duplicates"] == 1


def test_a_request_with_a_key_is_done_once_and_answered_the_same(call: Call) -> None:
    first = send(call, purchase("item1"), key="k-1")
    send(call, purchase("item2"))
    again = send(call, purchase("item1"), key="k-1")
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert call("GET", "/v1/users/u").json()["n_events"] == 2
    assert (
        "Idempotency-Key 'k-1'" in problem(send(call, purchase("item9"), key="k-1"), 409)["detail"]
    )
    problem(send(call, purchase("item1"), key="k" * 256), 422)


def test_a_recommendation_with_events_and_a_key_adds_them_once(call: Call) -> None:
    body = {"user_id": "u", "n": 1, "events": [purchase("item2")]}
    for _ in range(2):
        answer = call("POST", "/v1/recommend", json=body, headers={"Idempotency-Key": "k"})
        assert answer.json()["events"]["accepted"] == 1
        assert answer.json()["n_support"] == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_features_of_another_content_type_are_refused(call: Call, method: str) -> None:
    headers = {"Content-Type": "text/plain"}
    problem(call(method, "/v1/users/u", content=b'{"features": {}}', headers=headers), 415)
