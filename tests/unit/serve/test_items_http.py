"""Items over HTTP: new ones recommendable at once, on every replica; others closed or gone."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import ItemChange
from tests.unit.serve.conftest import ITEM_IDS, SmallArtifact, caller
from tests.unit.serve.test_ingress import ids, problem, purchase

Call = Callable[..., httpx.Response]

NEW = {"features": {"category": "red", "price": 1.5, "in_stock": True}}


def recommend(call: Call, **values: Any) -> httpx.Response:
    return call("POST", "/v1/recommend", json={"user_id": "u", "n": 20, **values})


def test_a_new_item_is_recommended_at_once_on_every_replica(
    call: Call, make_service: Callable[..., Service]
) -> None:
    other_replica = caller(make_service())
    assert "new/1" not in ids(recommend(other_replica))
    put = call("PUT", "/v1/items/new%2F1", json=NEW).json()
    assert put == {"catalogue_version": 1, "recommendable": 1, "reason": None}
    for replica in (call, other_replica):
        answer = recommend(replica)
        assert ids(answer) == [*ITEM_IDS, "new/1"]
        assert answer.json()["catalogue_version"] == 1
        assert recommend(replica, filter={"in_stock": True}).json()["items"][0]["id"] == "new/1"


def test_what_a_user_does_with_a_new_item_counts(call: Call) -> None:
    call("PUT", "/v1/items/new", json=NEW)
    call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("new")]})
    answer = recommend(call)
    assert answer.json()["n_support"] == 1
    assert "new" not in ids(answer)
    assert ids(answer)[0] == "item0"  # the item after the last one is the first


def test_a_state_from_before_a_new_item_is_not_used(call: Call) -> None:
    call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("item7x")]})
    call("POST", "/v1/events", json={"user_id": "u", "events": [purchase("item2")]})
    assert ids(recommend(call))[0] == "item3"
    call("PUT", "/v1/items/item7x", json=NEW)
    answer = recommend(call).json()
    assert answer["n_support"] == 2


def test_an_item_that_is_not_available_is_not_recommended_but_can_be_ranked(call: Call) -> None:
    call("PATCH", "/v1/items/item0", json={"available": False})
    assert "item0" not in ids(recommend(call))
    ranked = call("POST", "/v1/rank", json={"user_id": "u", "items": ["item0", "item1"]})
    assert ids(ranked) == ["item0", "item1"]
    item = call("GET", "/v1/items/item0").json()
    assert (item["available"], item["features"]["price"]) == (False, 0.0)
    call("PATCH", "/v1/items/item0", json={"available": True})
    assert ids(recommend(call))[0] == "item0"


def test_changed_features_are_what_filters_see(call: Call) -> None:
    call("PATCH", "/v1/items/item0", json={"features": {"category": "blue"}})
    assert "item0" not in ids(recommend(call, filter={"category": "red"}))
    assert "item0" in ids(recommend(call, filter={"category": "blue"}))
    assert call("GET", "/v1/items/item0").json()["features"] == {"category": "blue", "price": 0.0}


def test_a_deleted_item_is_gone_and_can_come_back(call: Call) -> None:
    call("PUT", "/v1/items/new", json=NEW)
    for item in ("item0", "new"):
        assert call("DELETE", f"/v1/items/{item}").status_code == 200
        problem(call("GET", f"/v1/items/{item}"), 404)
        problem(call("DELETE", f"/v1/items/{item}"), 404)
    assert ids(recommend(call)) == list(ITEM_IDS[1:])
    call("PUT", "/v1/items/new", json=NEW)
    assert "new" in ids(recommend(call))


def test_many_items_are_one_version(call: Call) -> None:
    items = [{"item_id": f"n{n}", **NEW} for n in range(3)]
    answer = call("POST", "/v1/items:batch", json={"items": items}).json()
    assert (answer["catalogue_version"], answer["recommendable"]) == (1, 3)
    assert set(ids(recommend(call))) == {*ITEM_IDS, "n0", "n1", "n2"}
    assert call("GET", "/v1/models").json()["variants"]["default"]["n_items"] == 11


def test_a_feature_of_the_wrong_kind_is_refused_before_it_is_kept(call: Call) -> None:
    body = problem(call("PUT", "/v1/items/new", json={"features": {"price": "cheap"}}), 422)
    assert "Item 'new': Feature 'price' wants a number" in body["detail"]
    problem(call("GET", "/v1/items/new"), 404)


def test_a_model_without_item_features_keeps_new_items_and_says_why_it_cannot_use_them(
    service: Service, maker: Maker, artifact: SmallArtifact
) -> None:
    plain = replace(artifact, item_encoder=None)
    service.use(
        {"default": TenantModels({"default": first_variant(plain, maker)}, "default")}  # type: ignore[arg-type]
    )
    call = caller(service)
    put = call("PUT", "/v1/items/new", json=NEW).json()
    assert put["recommendable"] == 0
    assert "had no features" in put["reason"]
    assert call("GET", "/v1/items/new").json()["recommendable"] is False
    assert "new" not in ids(recommend(call))


def test_tenants_have_their_own_items(call: Call) -> None:
    call("PUT", "/v1/items/new?tenant=other", json=NEW)
    assert "new" not in ids(recommend(call))
    assert "new" in ids(recommend(call, tenant="other"))
    problem(call("GET", "/v1/items/new"), 404)


def test_a_swapped_model_gets_the_items_too(
    call: Call, service: Service, maker: Maker, artifact: SmallArtifact
) -> None:
    call("PUT", "/v1/items/new", json=NEW)
    swapped = replace(artifact, model_version="small-2")
    service.use(
        {"default": TenantModels({"default": first_variant(swapped, maker)}, "default")}  # type: ignore[arg-type]
    )
    answer = recommend(call)
    assert answer.json()["model_version"] == "small-2"
    assert "new" in ids(answer)


def test_requests_that_need_a_new_catalogue_share_one_rebuild(
    service: Service, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(service.store.put_items("default", [ItemChange("new", NEW["features"])]))
    rebuilds = []
    rebuild = service.models._rebuild

    def counted(*arguments: Any) -> Any:
        rebuilds.append(arguments)
        return rebuild(*arguments)

    monkeypatch.setattr(service.models, "_rebuild", counted)

    async def refresh_often() -> None:
        await asyncio.gather(*(service.models.refresh("default", catalogue=1) for _ in range(9)))

    asyncio.run(refresh_often())
    assert len(rebuilds) == 1
