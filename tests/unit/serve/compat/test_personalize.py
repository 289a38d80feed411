"""Personalize's requests and answers: its own examples as they stand, and what they do."""

import json

import pytest

from tests.unit.serve.compat.conftest import IDS, Call, answered, export
from tests.unit.serve.test_ingress import problem

JSON = {"Content-Type": "application/json"}
EVENTS = r"""
{"trackingId":"t","userId":"u1","sessionId":"s1","eventList":[{"eventId":"e1","eventType":"click","eventValue":1.0,"itemId":"i1","properties":"{\"device\":\"ios\"}","sentAt":1719511760,"recommendationId":"RID-…","impression":["i1","i2"],"metricAttribution":{"eventAttributionSource":"home"}}]}
"""
RECOMMENDATIONS = r"""
{"campaignArn":"…","userId":"u1","itemId":"i9","numResults":25,"context":{"DEVICE":"ios"},"filterArn":"…","filterValues":{"CATEGORY":"\"shoes\""},"promotions":[{"name":"p","percentPromotedItems":20,"filterArn":"…","filterValues":{}}],"metadataColumns":{"ITEMS":["TITLE"]}}
"""
RANKING = """
{"campaignArn":"…","inputList":["i1","i2"],"userId":"u1","context":{},"filterArn":"…","filterValues":{},"metadataColumns":{}}
"""
ARN = "arn:aws:personalize:eu-west-1:123456789012"


def post(call: Call, path: str, content: str) -> object:
    return answered(call("POST", path, content=content, headers=JSON))


def test_its_events(call: Call) -> None:
    for _ in range(2):
        response = call("POST", "/events", content=EVENTS, headers=JSON)
        assert (response.status_code, response.content) == (200, b"")
    events = export(call, "u1")
    found = [(e["event_type"], e["item_id"], e.get("position"), e["ranking_id"]) for e in events]
    assert sorted(found, key=str) == [
        ("click", "i1", None, "RID-…"),
        ("impression", "i1", 0, "RID-…"),
        ("impression", "i2", 1, "RID-…"),
    ]
    assert {event["timestamp_ms"] for event in events} == {1719511760000}
    assert {event["visit_id"] for event in events} == {"s1"}


def test_its_recommendations(call: Call) -> None:
    call("PATCH", "/v1/items/vuejs:vue", json={"features": {"title": "Vue"}})
    answer = post(call, "/recommendations", RECOMMENDATIONS)
    assert answer.keys() == {"itemList", "recommendationId"}
    items = {item["itemId"]: item for item in answer["itemList"]}
    # every second item is a shoe; of 25 places 5 go to the promotion, best first, i9 is left out
    assert [i["itemId"] for i in answer["itemList"] if "promotionName" in i] == list(IDS[:5])
    others = [i["itemId"] for i in answer["itemList"] if "promotionName" not in i]
    assert others == [i for i in IDS[5:] if IDS.index(i) % 2 == 0 and i != "i9"]
    assert items["vuejs:vue"] == {
        "itemId": "vuejs:vue",
        "score": pytest.approx(0.9),
        "promotionName": "p",
        "metadata": {"TITLE": "Vue"},
    }


def test_its_ranking(call: Call) -> None:
    answer = post(call, "/personalize-ranking", RANKING)
    assert answer.keys() == {"personalizedRanking", "recommendationId"}
    assert [item["itemId"] for item in answer["personalizedRanking"]] == ["i1", "i2"]
    bought = json.loads(EVENTS)
    bought["eventList"][0] |= {"eventType": "purchase"}
    assert call("POST", "/events", json=bought).status_code == 200
    first = post(call, "/personalize-ranking", RANKING)["personalizedRanking"][0]
    assert first == {"itemId": "i2", "score": pytest.approx(1.18)}


def test_a_promotion_has_its_share_of_the_places_evenly(call: Call) -> None:
    asked = {
        "userId": "u1",
        "numResults": 10,
        "promotions": [
            {"name": "p", "percentPromotedItems": 20, "filterValues": {"category": '"hats"'}}
        ],
        "filterValues": {"CATEGORY": '"shoes","hats"'},
    }
    items = answered(call("POST", "/recommendations", json=asked))["itemList"]
    promoted = [place for place, item in enumerate(items) if item.get("promotionName") == "p"]
    assert promoted == [2, 7]
    assert [items[place]["itemId"] for place in promoted] == ["vercel:next.js", "product2"]
    asked |= {"numResults": 500}
    assert (
        "would have 100 items; at most 50"
        in problem(call("POST", "/recommendations", json=asked), 422)["detail"]
    )


def test_unknown_items_are_last_and_a_filter_leaves_out(call: Call) -> None:
    asked = {"userId": "u1", "inputList": ["nowhere", "i2", "i1"]}
    ranked = answered(call("POST", "/personalize-ranking", json=asked))["personalizedRanking"]
    assert [item["itemId"] for item in ranked] == ["i1", "i2", "nowhere"]
    assert "score" not in ranked[-1]
    asked["filterValues"] = {"Category": '"hats"'}
    ranked = answered(call("POST", "/personalize-ranking", json=asked))["personalizedRanking"]
    assert [item["itemId"] for item in ranked] == ["i2"]


def test_items_seen_may_come_again_and_an_item_alone_stands_for_a_user(call: Call) -> None:
    answered_events = call("POST", "/events", content=EVENTS, headers=JSON)
    assert answered_events.status_code == 200
    items = answered(call("POST", "/recommendations", json={"userId": "u1"}))["itemList"]
    assert {item["itemId"] for item in items} == {*IDS}
    like = answered(call("POST", "/recommendations", json={"itemId": "item3", "numResults": 1}))
    assert [item["itemId"] for item in like["itemList"]] == ["item4"]
    anybody = answered(call("POST", "/recommendations", json={"numResults": 1}))["itemList"]
    assert [item["itemId"] for item in anybody] == ["vuejs:vue"]


def test_a_campaign_names_a_variant_and_a_filter_is_not_guessed(call: Call) -> None:
    known = {"userId": "u1", "campaignArn": f"{ARN}:campaign/xgboost"}
    answered(call("POST", "/recommendations", json=known))
    unknown = {"userId": "u1", "recommenderArn": f"{ARN}:recommender/top"}
    detail = problem(call("POST", "/recommendations", json=unknown), 422)["detail"]
    assert "There is no variant 'top'" in detail
    filtered = {"userId": "u1", "filterArn": f"{ARN}:filter/not-bought"}
    detail = problem(call("POST", "/recommendations", json=filtered), 422)["detail"]
    assert "Send filterValues" in detail
    ranking = filtered | {"inputList": ["i1"]}
    problem(call("POST", "/personalize-ranking", json=ranking), 422)


def test_users_and_items(call: Call) -> None:
    users = {"datasetArn": "…", "users": [{"userId": "u2", "properties": '{"age": 33}'}]}
    items = {
        "datasetArn": "…",
        "items": [{"itemId": "n1", "properties": '{"category": "shoes", "price": 2.0}'}],
    }
    for path, body in (("/users", users), ("/items", items)):
        response = call("POST", path, json=body)
        assert (response.status_code, response.content) == (200, b"")
    assert answered(call("GET", "/v1/users/u2"))["features"] == {"age": 33}
    found = answered(call("POST", "/recommendations", json={"userId": "u2", "numResults": 50}))
    assert "n1" in [item["itemId"] for item in found["itemList"]]


@pytest.mark.parametrize(
    ("path", "change", "text"),
    [
        ("/events", {"eventList": []}, "eventList"),
        ("/events", {"eventList": [{"eventType": "click", "sentAt": 1}]}, "about no item"),
        ("/events", {"eventList": [{"eventType": "x", "itemId": "a", "sentAt": 1}]}, "no model"),
        ("/events", {"eventList": [{"eventType": "click", "sentAt": "x"}]}, "sentAt"),
        ("/recommendations", {"numResults": 501}, "numResults"),
        ("/recommendations", {"filterValues": {"CATEGORY": "shoes"}}, "Quote each value"),
        ("/recommendations", {"filterValues": {"COLOUR": '"red"'}}, "'COLOUR'"),
        ("/personalize-ranking", {"inputList": []}, "inputList"),
        ("/personalize-ranking", {"inputList": ["a"] * 501}, "inputList"),
        ("/users", {"users": [{"userId": "a", "properties": "{"}]}, "properties"),
        ("/items", {"items": [{"itemId": "a", "properties": "[]"}]}, "properties"),
    ],
)
def test_what_is_wrong_is_named(call: Call, path: str, change: dict, text: str) -> None:
    body = {"userId": "u1", "sessionId": "s1", "inputList": ["i1"], **change}
    assert text in problem(call("POST", path, json=body), 422)["detail"]
    problem(call("GET", "/v1/users/u1"), 404)
