"""Gorse's requests and answers: its own example as it stands, and each route."""

import json
from collections.abc import Callable

import pytest

from raymeta.config.serving import CompatConfig
from raymeta.serve.service import Service
from tests.unit.serve.compat.conftest import Call, answered, asking, export
from tests.unit.serve.test_ingress import problem

JSON = {"Content-Type": "application/json"}
FEEDBACK = """
[{"FeedbackType":"star","UserId":"bob","ItemId":"vuejs:vue","Value":1.0,"Timestamp":"2022-02-24T00:00:00Z","Labels":{},"Comment":""}]
"""
USER = '{"UserId":"bob","Labels":{},"Comment":""}'
ITEM = (
    '{"ItemId":"vuejs:vue","IsHidden":false,"Categories":[],"Timestamp":"2022-02-24",'
    '"Labels":{},"Comment":""}'
)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_its_feedback_is_kept_once_and_moves_the_next_answer(call: Call, method: str) -> None:
    for _ in range(2):
        kept = call(method, "/api/feedback", content=FEEDBACK, headers=JSON)
        assert answered(kept) == {"RowAffected": 1}
    (event,) = export(call, "bob")
    assert (event["event_type"], event["value"]) == ("star", 1.0)
    assert event["timestamp_ms"] == 1645660800000
    assert answered(call("GET", "/api/recommend/bob?n=2"))[0] == "vercel:next.js"
    scored = answered(call("GET", "/api/recommend/bob?n=2", headers={"X-API-Version": "2"}))
    assert scored[0] == {"Id": "vercel:next.js", "Score": pytest.approx(1.82)}
    assert answered(call("GET", "/api/user/bob/feedback")) == [
        {
            "FeedbackType": "star",
            "UserId": "bob",
            "ItemId": "vuejs:vue",
            "Value": 1.0,
            "Timestamp": "2022-02-24T00:00:00Z",
            "Comment": "",
        }
    ]
    assert len(answered(call("GET", "/api/user/bob/feedback/star"))) == 1
    assert answered(call("GET", "/api/user/bob/feedback/read")) == []


def test_feedback_of_several_users_and_a_wrong_one_among_them(call: Call) -> None:
    first, second = (json.loads(FEEDBACK)[0] | {"UserId": user} for user in ("ann", "bob"))
    wrong = second | {"FeedbackType": "smile"}
    detail = problem(call("POST", "/api/feedback", json=[first, wrong]), 422)["detail"]
    assert "'smile', which no model knows" in detail
    problem(call("GET", "/v1/users/ann"), 404)
    assert answered(call("POST", "/api/feedback", json=[first, second])) == {"RowAffected": 2}
    short = {"FeedbackType": "star", "UserId": "cat", "ItemId": "item1", "Timestamp": "2022-02-24"}
    assert answered(call("POST", "/api/feedback", json=[short])) == {"RowAffected": 1}
    assert export(call, "cat")[0]["timestamp_ms"] == 1645660800000


def test_its_types_can_be_named_in_this_services_words(named: Callable[..., Service]) -> None:
    compat = CompatConfig(products=("gorse",), event_types={"like": "purchase"})
    call = asking(named(), compat)
    liked = json.loads(FEEDBACK)[0] | {"FeedbackType": "like"}
    answered(call("POST", "/api/feedback", json=[liked]))
    assert export(call, "bob")[0]["event_type"] == "purchase"
    assert len(answered(call("GET", "/api/user/bob/feedback/like"))) == 1


def test_offset_category_and_what_is_seen(call: Call) -> None:
    whole = answered(call("GET", "/api/recommend/new?n=6"))
    assert answered(call("GET", "/api/recommend/new?n=2&offset=4")) == whole[4:]
    shoes = ["vuejs:vue", "product1"]
    assert answered(call("GET", "/api/recommend/new/shoes?n=2")) == shoes
    assert answered(call("GET", "/api/recommend/new?n=2&category=shoes")) == shoes
    call("POST", "/api/feedback", content=FEEDBACK.replace("bob", "new"), headers=JSON)
    assert "vuejs:vue" not in answered(call("GET", "/api/recommend/new?n=50"))


def test_what_is_shown_can_be_kept_as_feedback(call: Call) -> None:
    shown = answered(call("GET", "/api/recommend/ann?n=2&write-back-type=view"))
    kept = sorted(export(call, "ann"), key=lambda event: event["position"])
    assert [(event["item_id"], event["event_type"]) for event in kept] == [
        (item, "view") for item in shown
    ]
    assert not {*shown} & {*answered(call("GET", "/api/recommend/ann?n=50"))}
    later = call("GET", "/api/recommend/ann?write-back-type=view&write-back-delay=10m")
    assert "'10m'" in problem(later, 422)["detail"]


def test_a_session_leaves_nothing(call: Call) -> None:
    scored = answered(call("POST", "/api/session/recommend?n=1", content=FEEDBACK, headers=JSON))
    assert [item["Id"] for item in scored] == ["vercel:next.js"]
    in_hats = call("POST", "/api/session/recommend/hats?n=2", content=FEEDBACK, headers=JSON)
    assert [item["Id"] for item in answered(in_hats)] == ["vercel:next.js", "product2"]
    problem(call("GET", "/v1/users/bob"), 404)


def test_scored_lists(call: Call) -> None:
    answered(call("POST", "/api/feedback", content=FEEDBACK, headers=JSON))
    scored = answered(call("GET", "/api/collaborative-filtering/bob?n=1"))
    assert [item["Id"] for item in scored] == ["vercel:next.js"]
    popular = answered(call("GET", "/api/non-personalized/default?n=1"))
    assert popular == [{"Id": "vuejs:vue", "Score": pytest.approx(0.9)}]
    like = answered(call("GET", "/api/item-to-item/similar/item3?n=1"))
    assert [item["Id"] for item in like] == ["item4"]
    assert "'nothing'" in problem(call("GET", "/api/item-to-item/similar/nothing"), 404)["detail"]
    assert "'x'" in problem(call("GET", "/api/non-personalized/x"), 422)["detail"]


def test_users(call: Call) -> None:
    assert answered(call("POST", "/api/user", content=USER, headers=JSON)) == {"RowAffected": 1}
    assert answered(call("GET", "/api/user/bob")) == json.loads(USER)
    changed = {"Labels": {"country": "DE"}, "Comment": "vip"}
    assert answered(call("PATCH", "/api/user/bob", json=changed)) == {"RowAffected": 1}
    assert answered(call("GET", "/api/user/bob")) == {"UserId": "bob", **changed}
    several = [{"UserId": "a", "Labels": ["x", "y"]}, {"UserId": "b"}]
    assert answered(call("POST", "/api/users", json=several)) == {"RowAffected": 2}
    assert answered(call("GET", "/api/user/a"))["Labels"] == ["x", "y"]
    assert answered(call("DELETE", "/api/user/bob")) == {"RowAffected": 1}
    problem(call("GET", "/api/user/bob"), 404)


def test_items(call: Call) -> None:
    assert answered(call("POST", "/api/item", content=ITEM, headers=JSON)) == {"RowAffected": 1}
    kept = answered(call("GET", "/api/item/vuejs:vue"))
    assert kept.keys() == json.loads(ITEM).keys()
    assert (kept["IsHidden"], kept["Timestamp"]) == (False, "2022-02-24T00:00:00Z")
    assert answered(call("PATCH", "/api/item/vuejs:vue", json={"IsHidden": True}))
    assert answered(call("GET", "/api/item/vuejs:vue"))["IsHidden"] is True
    assert "vuejs:vue" not in answered(call("GET", "/api/recommend/new?n=50"))
    new = [{"ItemId": "n1", "Categories": ["shoes"], "Labels": {"price": 1.0}}, {"ItemId": "n2"}]
    assert answered(call("POST", "/api/items", json=new)) == {"RowAffected": 2}
    assert "n1" in answered(call("GET", "/api/recommend/new/shoes?n=50"))
    assert answered(call("DELETE", "/api/item/n2")) == {"RowAffected": 1}
    problem(call("GET", "/api/item/n2"), 404)


def test_categories_are_a_feature_of_one_value_or_of_several(
    named: Callable[..., Service],
) -> None:
    call = asking(named(), CompatConfig(products=("gorse",), category_feature="tags"))
    for category in ("new", "old", "new"):
        assert answered(call("PUT", f"/api/item/item1/category/{category}")) == {"RowAffected": 1}
    assert answered(call("GET", "/api/item/item1"))["Categories"] == ["old", "new"]
    assert answered(call("GET", "/api/recommend/ann/old")) == ["item1"]
    answered(call("DELETE", "/api/item/item1/category/old"))
    assert answered(call("GET", "/v1/items/item1"))["features"]["tags"] == "new"
    answered(call("DELETE", "/api/item/item1/category/new"))
    assert answered(call("GET", "/api/item/item1"))["Categories"] == []


def test_a_feature_that_the_model_has_one_value_of_takes_no_second(call: Call) -> None:
    refused = problem(call("PUT", "/api/item/item1/category/new"), 422)
    assert "'category' wants a text" in refused["detail"]


def test_health(call: Call) -> None:
    for kind in ("live", "ready"):
        assert answered(call("GET", f"/api/health/{kind}")) == {"Ready": True}
