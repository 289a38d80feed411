"""A plain request is read directly, any other by FastAPI: nobody may tell the two apart."""

import json
from collections.abc import Callable

import httpx
import pytest

PLAIN = {"Content-Type": "application/json"}
USUAL = {"Content-Type": "application/json; charset=utf-8"}
EVENT = {"event_id": "e", "item_id": "item2", "event_type": "purchase", "timestamp": 1}
PATHS = ("/v1/recommend", "/v1/rank", "/v1/session/recommend", "/v1/events")
WELL_FORMED = (
    ("/v1/recommend", {"user_id": "u", "n": 3}),
    ("/v1/rank", {"user_id": "u", "items": ["item1", "item3"]}),
    ("/v1/session/recommend", {"events": [EVENT], "n": 3}),
    ("/v1/events", {"user_id": "u", "events": [EVENT]}),
)
REFUSED = (
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"null",
    b'{"user_id": 3}',
    b'{"user_id": "u", "n": 0, "events": [{}], "nobody": 1}',
    b"[" * 3000,
)


@pytest.mark.parametrize(("path", "body"), WELL_FORMED)
def test_both_ways_give_the_same_answer(
    path: str, body: dict[str, object], call: Callable[..., httpx.Response]
) -> None:
    call("POST", "/v1/events", json={"user_id": "u", "events": [EVENT]})
    plain, usual = (call("POST", path, content=json.dumps(body), headers=h) for h in (PLAIN, USUAL))
    assert plain.status_code == usual.status_code == 200
    mine = {"recommendation_id", "took_ms"}
    assert {k: v for k, v in plain.json().items() if k not in mine} == {
        k: v for k, v in usual.json().items() if k not in mine
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", REFUSED)
def test_both_ways_refuse_with_the_same_words(
    path: str, body: bytes, call: Callable[..., httpx.Response]
) -> None:
    plain, usual = (call("POST", path, content=body, headers=h) for h in (PLAIN, USUAL))
    assert plain.status_code == usual.status_code
    assert 400 <= plain.status_code < 500
    mine = {"request_id"}
    assert {k: v for k, v in plain.json().items() if k not in mine} == {
        k: v for k, v in usual.json().items() if k not in mine
    }


@pytest.mark.parametrize("path", PATHS)
def test_another_method_is_told_which_one_it_takes(
    path: str, call: Callable[..., httpx.Response]
) -> None:
    answer = call("GET", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_key_makes_a_request_one_that_is_answered_once(
    call: Callable[..., httpx.Response],
) -> None:
    body = {"user_id": "u", "events": [EVENT]}
    first, second = (
        call("POST", "/v1/events", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
