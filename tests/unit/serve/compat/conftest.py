"""A service that speaks all three products, whose items and variants have the names of their
examples. The right answers can be written down by hand, as in the tests of the service itself:
buying an item shows the next one in the list of ids."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pyarrow as pa
import pytest
import torch

from raymeta.config.serving import CompatConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import SupportView
from raymeta.data.features import FeatureVocab
from raymeta.serve.ingress import create_app
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.service import Service
from tests.unit.serve.conftest import KINDS, Counting, SmallArtifact

IDS = (
    *("vuejs:vue", "vercel:next.js", "product1", "product2"),
    *("item1", "item2", "item3", "item4", "i1", "i2", "i9"),
)
ALL = CompatConfig(products=("gorse", "metarank", "personalize"))
Call = Callable[..., httpx.Response]


@pytest.fixture
def artifact() -> SmallArtifact:
    items = pa.table(
        {
            "item_id": list(IDS),
            "category": ["shoes" if n % 2 == 0 else "hats" for n in range(len(IDS))],
            "price": [float(n) for n in range(len(IDS))],
        }
    )
    return SmallArtifact(
        event_types=("purchase", "star"),
        view=SupportView(100, (0, 1)),
        algorithm=Counting(num_items=len(IDS), poison=-1, nan=-1),
        catalogue=Catalogue(items, KINDS, FeatureVocab.count(items, KINDS, min_rows=1)),
        meta_params={"prior": torch.linspace(0.9, 0.1, len(IDS))},
    )


@pytest.fixture
def named(
    make_service: Callable[..., Service], artifact: SmallArtifact, maker: Maker
) -> Callable[..., Service]:
    """A service whose variants have the names of the products' models."""

    def make(**options: Any) -> Service:
        limits = {
            "max_future_s": 10**9,  # the examples' moments lie after the tests' clock
            "max_recommendations": 500,
            "max_events": 500,
            "max_body_bytes": 1 << 20,
        }
        made = make_service(**{**limits, **options})
        variant = first_variant(artifact, maker)  # type: ignore[arg-type]
        variants = dict.fromkeys(("default", "xgboost", "similar"), variant)
        made.use({name: TenantModels(variants, "default") for name in ("default", "other")})
        return made

    return make


def asking(service: Service, compat: CompatConfig = ALL) -> Call:
    """`call("POST", "/feedback", json=...)` against the application with these products."""
    app = create_app(service, compat=compat)

    def request(method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return request


@pytest.fixture
def call(named: Callable[..., Service]) -> Call:
    return asking(named())


def answered(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def export(call: Call, user: str) -> list[dict[str, Any]]:
    """What the log has of a user."""
    return answered(call("GET", f"/v1/users/{user}/export"))["events"]
