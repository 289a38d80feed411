"""How items are chosen, over HTTP: filters, pins, diversity, exploration, reasons, given items."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from raymeta.serve.service import Service
from tests.unit.serve.conftest import ITEM_IDS, caller
from tests.unit.serve.test_ingress import ids, problem, purchase

Call = Callable[..., httpx.Response]


def ask(call: Call, path: str = "/v1/recommend", **values: Any) -> httpx.Response:
    return call("POST", path, json={"user_id": "u", **values})


def buy(call: Call, *items: str, user: str = "u") -> None:
    body = {"user_id": user, "events": [purchase(item) for item in items]}
    assert call("POST", "/v1/events", json=body).status_code == 200


def test_only_items_that_pass_the_filter(call: Call) -> None:
    assert ids(ask(call, n=9, filter={"category": "blue"})) == ["item1", "item3", "item5", "item7"]
    both = {"category": ["red", "green"], "price": {"min": 2, "max": 4}}
    assert ids(ask(call, n=9, filter=both)) == ["item2", "item4"]
    body = problem(ask(call, filter={"colour": "red"}), 422)
    assert "'colour'" in body["detail"]
    problem(ask(call, filter={"price": {"least": 2}}), 422)


def test_bought_items_can_be_left_out_where_seen_ones_are_not(call: Call) -> None:
    events = [purchase("item0"), {"item_id": "item1", "event_type": "view"}]
    call("POST", "/v1/events", json={"user_id": "u", "events": events})
    assert {"item0", "item1"} <= set(ids(ask(call, n=9, exclude_seen=False)))
    kept = ids(ask(call, n=9, exclude_seen=False, exclude_bought=True))
    assert "item0" not in kept
    assert "item1" in kept


def test_pins_are_where_the_shop_wants_them(call: Call) -> None:
    response = ask(call, n=3, pins=[{"item_id": "item7", "position": 1}])
    assert ids(response) == ["item0", "item7", "item1"]
    assert [item["pinned"] for item in response.json()["items"]] == [None, True, None]
    body = problem(ask(call, pins=[{"item_id": "nothing", "position": 0}]), 422)
    assert "pins.0.item_id is 'nothing'" in body["detail"]
    twice = [{"item_id": "item1", "position": 0}, {"item_id": "item2", "position": 0}]
    problem(ask(call, pins=twice), 422)


def test_diversity_turns_towards_what_is_unlike(call: Call) -> None:
    assert ids(ask(call, n=4)) == ["item0", "item1", "item2", "item3"]
    # red and blue items are at right angles, so the second must be the best blue one
    assert ids(ask(call, n=2, filter={"price": {"min": 2}}, diversity=0.9)) == ["item2", "item3"]
    reds_first = ids(ask(call, n=2, exclude=["item1", "item3", "item5"], diversity=0.9))
    assert reds_first == ["item0", "item7"]


def test_a_drawn_list_has_its_propensities_and_is_logged_before_it_is_shown(call: Call) -> None:
    buy(call, "item0")
    body = ask(call, n=3, exploration=1.0).json()
    propensities = [item["propensity"] for item in body["items"]]
    assert all(0 < p <= 1 for p in propensities)
    (logged,) = call("GET", "/v1/users/u/export").json()["rankings"]
    assert logged["ranking_id"] == body["recommendation_id"]
    assert logged["model_version"] == "small-1"
    assert logged["slots"] == [[i["id"], i["propensity"]] for i in body["items"]]


def test_exploration_beside_diversity_is_refused(call: Call) -> None:
    assert "propensities" in problem(ask(call, exploration=1.0, diversity=0.5), 422)["detail"]


def test_reasons_are_what_the_score_would_lose(call: Call) -> None:
    buy(call, "item2", "item2", "item4")
    items = {item["id"]: item["reasons"] for item in ask(call, n=9, explain=True).json()["items"]}
    first, second = items["item3"], items["item5"]
    assert first[0] == {
        "item_id": "item2",
        "event_type": "purchase",
        "effect": pytest.approx(2.0),
    }
    assert second[0]["item_id"] == "item4"
    assert second[0]["effect"] == pytest.approx(1.0)
    assert all(reason["effect"] == pytest.approx(0.0) for reason in items["item0"])


def test_nobody_in_particular_has_no_reasons(call: Call) -> None:
    assert [item["reasons"] for item in ask(call, n=2, explain=True).json()["items"]] == [[], []]


def test_given_items_come_in_the_users_order_and_unknown_ones_apart(call: Call) -> None:
    buy(call, "item2")
    given = ["item7", "nowhere", "item3", "item2", "item7"]
    response = ask(call, "/v1/rank", items=given)
    assert ids(response) == ["item3", "item2", "item7"]
    assert response.json()["unknown_items"] == ["nowhere"]
    assert response.json()["n_support"] == 1
    only_unknown = ask(call, "/v1/rank", items=["nowhere"])
    assert ids(only_unknown) == []


def test_events_sent_along_count_in_a_rank(call: Call) -> None:
    response = ask(call, "/v1/rank", items=list(ITEM_IDS), events=[purchase("item5")])
    assert ids(response)[0] == "item6"
    assert response.json()["events"]["accepted"] == 1


@pytest.mark.parametrize(
    ("path", "values", "scenario"),
    [
        ("/v1/rank", {"query": "shoes"}, "search"),
        ("/v1/rank", {"scenario": "ads"}, "ads"),
        ("/v1/predict", {"targets": ["click"]}, "ads"),
        ("/v1/predict", {"targets": ["purchase_intent"]}, "intent"),
    ],
)
def test_what_the_model_was_not_trained_for_says_so(
    call: Call, path: str, values: dict[str, Any], scenario: str
) -> None:
    body = problem(ask(call, path, items=["item1"], **values), 422)
    assert f"not trained for the scenario '{scenario}'; it has recommend." in body["detail"]
    assert "Train an artifact with a head" in body["detail"]


def test_a_session_is_answered_as_the_same_user_would_be_and_leaves_nothing(call: Call) -> None:
    events = [purchase("item4", timestamp=2), purchase("item2", timestamp=1)]
    session = call("POST", "/v1/session/recommend", json={"events": events, "n": 3})
    call("POST", "/v1/events", json={"user_id": "u", "events": events})
    user = ask(call, n=3)
    assert session.json()["items"] == user.json()["items"]
    assert session.json()["n_support"] == 2
    assert session.json()["state_version"] == 0
    empty = call("POST", "/v1/session/recommend", json={"n": 2})
    assert (ids(empty), empty.json()["fallback"]) == (["item0", "item1"], "prior")


def test_limits_of_what_may_be_asked(
    make_service: Callable[..., Service],
) -> None:
    call = caller(make_service(max_candidates=2, max_excluded=1))
    many = ask(call, "/v1/rank", items=["a", "b", "c"])
    assert "items is 3; at most 2" in problem(many, 422)["detail"]
    assert "exclude is 2" in problem(ask(call, exclude=["a", "b"]), 422)["detail"]
