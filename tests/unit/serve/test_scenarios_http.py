"""One variant, a model a scenario: each request is answered by the model that is for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch

from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.service import Service
from tests.unit.serve.conftest import NOW_MS, SmallArtifact, caller

Call = Callable[..., httpx.Response]


@pytest.fixture
def call(service: Service, artifact: SmallArtifact, maker: Maker) -> Call:
    """Recommends by one model, and orders what is searched for by another that likes the last."""
    last_first = {"prior": torch.linspace(0.1, 0.8, len(artifact.catalogue))}
    other = replace(
        artifact,
        model_version="small-2",
        meta_params=last_first,
        manifest={**artifact.manifest, "scenarios": ["search"]},
    )
    search = first_variant(other, maker)  # type: ignore[arg-type]
    main = first_variant(artifact, maker)  # type: ignore[arg-type]
    variant = replace(main, beside={"search": search})
    service.use({"default": TenantModels({"default": variant}, "default")})
    return caller(service)


def ranked(call: Call, **request: Any) -> dict[str, Any]:
    items = ["item0", "item1", "item7"]
    response = call("POST", "/v1/rank", json={"user_id": "ann", "items": items, **request})
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_each_scenario_has_its_model(call):
    event = {"event_type": "purchase", "item_id": "item2", "timestamp": NOW_MS}
    assert call("POST", "/v1/events", json={"user_id": "ann", "events": [event]}).is_success
    for _ in range(2):  # adapted, then from memory: states of two models are not mixed up
        main, search = ranked(call), ranked(call, query="shoes")
        assert main["model_version"] == "small-1"
        assert search["model_version"] == "small-2"
        assert main["n_support"] == search["n_support"] == 1
        assert [i["id"] for i in main["items"]] != [i["id"] for i in search["items"]]
    again = call("POST", "/v1/recommend", json={"user_id": "ann", "n": 3}).json()
    assert again["model_version"] == "small-1"


def test_events_sent_along_reach_the_model_of_the_scenario(call):
    event = {"event_type": "purchase", "item_id": "item2", "timestamp": NOW_MS}
    answer = ranked(call, scenario="search", events=[event])
    assert answer["model_version"] == "small-2"
    assert answer["n_support"] == 1


def test_what_no_model_is_for_is_refused(call):
    response = call(
        "POST", "/v1/rank", json={"user_id": "ann", "items": ["item0"], "scenario": "ads"}
    )
    assert response.status_code == 422
    assert "'ads'" in response.json()["detail"]


def test_the_scenarios_are_told(call):
    assert call("GET", "/v1/models").json()["variants"]["default"]["scenarios"] == [
        "recommend",
        "search",
    ]
    versions = call("GET", "/readyz").json()["models"]["default"]
    assert versions == {"default": "small-1", "default/search": "small-2"}
