"""Metarank's requests and answers: its own examples as they stand, and what they do."""

import json

import pytest

from tests.unit.serve.compat.conftest import Call, answered, export
from tests.unit.serve.test_ingress import problem

JSON = {"Content-Type": "application/json"}
ITEM, USER, RANKING, INTERACTION = """
{"event":"item","id":"e1","timestamp":"1599391467000","item":"product1","fields":[{"name":"title","value":"jeans"},{"name":"price","value":20.0}]}
{"event":"user","id":"e2","timestamp":"1599391467000","user":"user1","fields":[{"name":"age","value":33}]}
{"event":"ranking","id":"r1","timestamp":"1599391467000","user":"user1","session":"s1","fields":[{"name":"query","value":"jeans"}],"items":[{"id":"product1","fields":[{"name":"relevancy","value":2.0}]},{"id":"product2"}]}
{"event":"interaction","id":"e3","ranking":"r1","timestamp":"1599391467000","user":"user1","session":"s1","type":"purchase","item":"product1","fields":[]}
""".strip().splitlines()
RANK = """
{"id":"r2","timestamp":"1599391467000","user":"user1","session":"s1","fields":[{"name":"query","value":"jeans"}],"items":[{"id":"item3","fields":[{"name":"relevancy","value":2.0}]},{"id":"item1"}]}
"""
SIMILAR = '{"count":10,"user":"alice1","items":["item4"]}'


@pytest.mark.parametrize("sent", [ITEM, USER, RANKING, INTERACTION])
def test_each_event_is_accepted_alone(call: Call, sent: str) -> None:
    answer = answered(call("POST", "/feedback", content=sent, headers=JSON))
    assert answer.keys() == {"accepted", "status", "tookMillis", "updated"}
    assert (answer["accepted"], answer["status"]) == (1, "ok")


def test_together_they_are_a_list_that_was_shown_and_bought_from(call: Call) -> None:
    sent = f"[{ITEM},{USER},{RANKING},{INTERACTION}]"
    first = answered(call("POST", "/feedback", content=sent, headers=JSON))
    again = answered(call("POST", "/feedback", content=sent, headers=JSON))
    assert (first["accepted"], first["updated"]) == (4, 5)
    assert (again["accepted"], again["updated"]) == (4, 2)
    bought, *shown = sorted(export(call, "user1"), key=lambda e: e["event_type"] == "impression")
    assert (bought["event_id"], bought["ranking_id"], bought["visit_id"]) == ("e3", "r1", "s1")
    assert [(e["item_id"], e["position"], e["ranking_id"], e["query"]) for e in shown] == [
        ("product1", 0, "r1", "jeans"),
        ("product2", 1, "r1", "jeans"),
    ]
    assert answered(call("GET", "/v1/users/user1"))["features"] == {"age": 33}
    features = answered(call("GET", "/v1/items/product1"))["features"]
    assert features == {"category": "shoes", "title": "jeans", "price": 20.0}


def test_its_rank(call: Call) -> None:
    bought = json.loads(INTERACTION) | {"item": "item2"}
    answered(call("POST", "/feedback", json=bought))
    answer = answered(call("POST", "/rank/xgboost?explain=true", content=RANK, headers=JSON))
    assert answer.keys() == {"took", "items"}
    first, second = answer["items"]
    assert (first["item"], second["item"]) == ("item3", "item1")
    assert first["score"] == pytest.approx(1.42)
    assert first["features"] == [{"name": "purchase item2", "value": pytest.approx(1.0)}]
    plain = answered(call("POST", "/rank/xgboost", content=RANK, headers=JSON))
    assert plain["items"] == [{k: i[k] for k in ("item", "score")} for i in answer["items"]]


def test_items_that_the_model_does_not_know_are_last(call: Call) -> None:
    asked = json.loads(RANK) | {"items": [{"id": "nowhere"}, {"id": "item1"}]}
    items = answered(call("POST", "/rank/xgboost", json=asked))["items"]
    assert [item["item"] for item in items] == ["item1", "nowhere"]
    assert items[0]["score"] == items[1]["score"]
    asked["items"] = [{"id": "nowhere"}]
    items = answered(call("POST", "/rank/xgboost", json=asked))["items"]
    assert items == [{"item": "nowhere", "score": 0.0}]


def test_its_recommendations(call: Call) -> None:
    answer = answered(call("POST", "/recommend/similar", content=SIMILAR, headers=JSON))
    assert answer.keys() == {"took", "items"}
    assert answer["items"][0] == {"item": "i1", "score": pytest.approx(1.26)}
    assert "item4" not in [item["item"] for item in answer["items"]]
    answered(call("POST", "/feedback", content=INTERACTION, headers=JSON))
    mine = answered(call("POST", "/recommend/similar", json={"user": "user1", "count": 1}))
    assert [item["item"] for item in mine["items"]] == ["product2"]
    anybody = answered(call("POST", "/recommend/similar", json={"count": 1}))
    assert [item["item"] for item in anybody["items"]] == ["vuejs:vue"]


def test_a_session_stands_for_a_user_who_is_not_known(call: Call) -> None:
    anonymous = {k: v for k, v in json.loads(INTERACTION).items() if k != "user"}
    answered(call("POST", "/feedback", json=anonymous))
    assert len(export(call, "s1")) == 1
    nobody = {k: v for k, v in anonymous.items() if k != "session"}
    assert (
        "Neither a user nor a session"
        in problem(call("POST", "/feedback", json=nobody), 422)["detail"]
    )


def test_what_is_wrong_is_named(call: Call) -> None:
    problem(call("POST", "/feedback", json=json.loads(INTERACTION) | {"type": "smile"}), 422)
    problem(call("POST", "/feedback", json=json.loads(INTERACTION) | {"event": "wish"}), 422)
    problem(call("POST", "/feedback", json=json.loads(INTERACTION) | {"timestamp": "soon"}), 422)
    problem(call("GET", "/v1/users/user1"), 404)
    detail = problem(call("POST", "/rank/lambdamart", content=RANK, headers=JSON), 422)["detail"]
    assert "There is no variant 'lambdamart'. Use one of: default, similar, xgboost." in detail


def test_health(call: Call) -> None:
    assert answered(call("GET", "/health")) == {"status": "ok"}
