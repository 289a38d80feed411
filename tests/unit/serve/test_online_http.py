"""Variants over HTTP: dealt, measured from what users were shown and did, and interleaved."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch

from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.service import Service
from tests.helpers.clocks import Clock
from tests.unit.serve.conftest import NOW_MS, SmallArtifact, caller

Call = Callable[..., httpx.Response]
HOUR_MS = 3_600_000


@pytest.fixture
def call(service: Service, artifact: SmallArtifact, maker: Maker) -> Call:
    """Two variants that get half of the users each; `backwards` likes what `forwards` does not."""
    reversed_prior = {"prior": torch.linspace(0.1, 0.8, len(artifact.catalogue))}
    backwards = replace(artifact, model_version="small-2", meta_params=reversed_prior)
    variants = {
        "forwards": first_variant(artifact, maker),  # type: ignore[arg-type]
        "backwards": first_variant(backwards, maker),  # type: ignore[arg-type]
    }
    traffic = {"forwards": 1.0, "backwards": 1.0}
    service.use({"default": TenantModels(variants, "forwards", traffic, "spring")})
    return caller(service)


def recommend(call: Call, user_id: str, **request: Any) -> dict[str, Any]:
    response = call("POST", "/v1/recommend", json={"user_id": user_id, "n": 4, **request})
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


def shown(answer: dict[str, Any], at_ms: int = NOW_MS) -> list[dict[str, Any]]:
    return [
        {
            "event_type": "impression",
            "item_id": item["id"],
            "timestamp": at_ms,
            "ranking_id": answer["recommendation_id"],
            "position": position,
        }
        for position, item in enumerate(answer["items"])
    ]


def act(answer: dict[str, Any], item_id: str, kind: str, at_ms: int) -> dict[str, Any]:
    return {
        "event_type": kind,
        "item_id": item_id,
        "timestamp": at_ms,
        "ranking_id": answer["recommendation_id"],
    }


def tell(call: Call, user_id: str, *events: dict[str, Any]) -> None:
    for event in events:
        response = call("POST", "/v1/events", json={"user_id": user_id, "events": [event]})
        assert response.is_success, response.text


def metrics(call: Call, **query: Any) -> dict[str, Any]:
    response = call("GET", "/v1/metrics/online", params=query)
    assert response.is_success, response.text
    found: dict[str, Any] = response.json()
    return found


def test_users_are_dealt_and_keep_their_variant(call: Call) -> None:
    first = {f"u{n}": recommend(call, f"u{n}")["variant"] for n in range(40)}
    assert set(first.values()) == {"forwards", "backwards"}
    assert first == {user: recommend(call, user)["variant"] for user in first}
    assert recommend(call, "u0", variant="backwards")["variant"] == "backwards"
    visitor = call("POST", "/v1/session/recommend", json={"n": 2}).json()
    assert visitor["variant"] == "forwards"  # there is no user to deal by
    found = call("GET", "/v1/experiments").json()
    assert found["salt"] == "spring"
    assert found["variants"]["backwards"] == {
        "model_version": "small-2",
        "share": 0.5,
        "is_default": False,
    }


def test_clicks_and_purchases_are_those_of_the_list_and_its_variant(
    call: Call, clock: Clock
) -> None:
    for user in ("u1", "u2", "u3", "u4"):
        answer = recommend(call, user, variant="forwards")
        best = answer["items"][0]["id"]
        tell(call, user, *shown(answer))
        if user != "u4":
            tell(call, user, act(answer, best, "view", NOW_MS + 1))
        if user == "u1":
            tell(call, user, act(answer, best, "purchase", NOW_MS + HOUR_MS))
    answer = recommend(call, "u5", variant="backwards")
    tell(call, "u5", *shown(answer))
    still_open = metrics(call)["variants"]
    assert still_open["forwards"]["open"] == 16
    assert still_open["forwards"]["users"] == 0

    clock.advance(8 * 24 * HOUR_MS)
    found = metrics(call)
    forwards, backwards = found["variants"]["forwards"], found["variants"]["backwards"]
    counts = ("users", "impressions", "clicks", "conversions", "open")
    assert [forwards[name] for name in counts] == [4, 16, 3, 1, 0]
    assert [backwards[name] for name in counts] == [1, 4, 0, 0, 0]
    assert forwards["click_rate"]["value"] == 3 / 16
    assert forwards["users_clicked"]["value"] == 0.75
    assert forwards["users_clicked_change"] is None
    assert backwards["users_clicked_change"]["value"] == -0.75
    assert found["sample_ratio"]["users"] == {"forwards": 4, "backwards": 1}
    assert not found["sample_ratio"]["alarm"]
    # an hour is too short for the purchase
    assert metrics(call, conversion_hours=0.5)["variants"]["forwards"]["conversions"] == 0


def test_what_lists_were_for_is_counted_apart_and_in_all(call: Call, clock: Clock) -> None:
    for variant, clicks in (("forwards", 2), ("backwards", 1)):
        user = f"of-{variant}"
        listed = recommend(call, user, variant=variant)
        ranked = call(
            "POST",
            "/v1/rank",
            json={"user_id": user, "items": ["item1", "item2"], "variant": variant},
        ).json()
        # as the list of a search has it; the small artifact has no head for one
        searched = {**ranked, "recommendation_id": f"{ranked['recommendation_id']}:search"}
        tell(call, user, *shown(listed), *shown(searched))
        for item in searched["items"][:clicks]:
            tell(call, user, act(searched, item["id"], "view", NOW_MS + 1))
    clock.advance(8 * 24 * HOUR_MS)
    found = metrics(call)
    for variant, clicks in (("forwards", 2), ("backwards", 1)):
        of_variant = found["variants"][variant]
        for scenario, impressions, clicked in (("recommend", 4, 0), ("search", 2, clicks)):
            of_scenario = of_variant["scenarios"][scenario]
            assert (of_scenario["users"], of_scenario["impressions"]) == (1, impressions)
            assert of_scenario["click_rate"]["value"] == clicked / impressions
        assert (of_variant["users"], of_variant["impressions"], of_variant["clicks"]) == (
            *(1, 6, clicks),
        )
    backwards = found["variants"]["backwards"]["scenarios"]
    assert backwards["search"]["users_clicked_change"]["value"] == 0.0
    assert found["days"] == [{"day": "2023-11-14", "events": {"impression": 12, "view": 3}}]


def test_a_split_that_is_broken_raises_the_alarm(call: Call, clock: Clock) -> None:
    for n in range(20):
        answer = recommend(call, f"u{n}", variant="forwards")
        tell(call, f"u{n}", *shown(answer)[:1])
    clock.advance(8 * 24 * HOUR_MS)
    assert metrics(call)["sample_ratio"]["alarm"]


def test_two_variants_in_one_list(call: Call, clock: Clock) -> None:
    alone = {
        name: [item["id"] for item in recommend(call, "u", variant=name)["items"]]
        for name in ("forwards", "backwards")
    }
    for n in range(12):
        event = {"event_type": "purchase", "item_id": "item3", "event_id": "once"}
        answer = recommend(
            call, f"v{n}", interleave=["forwards", "backwards"], events=[event] if n == 0 else []
        )
        assert answer["variant"] == "forwards+backwards"
        assert len(answer["items"]) == 4
        if n > 0:
            for item in answer["items"]:
                assert item["id"] in alone[item["variant"]]
        wanted = next(item for item in answer["items"] if item["variant"] == "backwards")
        tell(call, f"v{n}", *shown(answer), act(answer, wanted["id"], "view", NOW_MS + 5))
    assert call("GET", "/v1/users/v0").json()["n_events"] == 6  # its purchase was kept once
    clock.advance(8 * 24 * HOUR_MS)
    (found,) = metrics(call)["interleavings"]
    assert (found["first"], found["second"]) == ("forwards", "backwards")
    assert (found["prefer_first"], found["prefer_second"], found["ties"]) == (0, 12, 0)
    assert found["p"] < 0.001


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"interleave": ["forwards", "forwards"]}, "one variant twice"),
        ({"interleave": ["forwards", "sideways"]}, "no variant 'sideways'"),
        ({"interleave": ["forwards", "backwards"], "exploration": 1.0}, "goes without"),
        ({"interleave": ["forwards", "backwards"], "variant": "forwards"}, "goes without"),
    ],
)
def test_what_cannot_be_interleaved(call: Call, request_: dict[str, Any], message: str) -> None:
    response = call("POST", "/v1/recommend", json={"user_id": "u", **request_})
    assert response.status_code in (400, 422)
    assert message in response.text
