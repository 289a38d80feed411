"""A service around a small artifact in memory, whose right answers can be written down by hand."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from raymeta.config.serving import LimitsConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import SupportView
from raymeta.errors import AdaptationError
from raymeta.serve.ingress import create_app
from raymeta.serve.recommender import Recommender
from raymeta.serve.service import Service, TenantModels
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.types import Examples, Params, TaskState

ITEM_IDS = tuple(f"item{n}" for n in range(8))
NOW_MS = 1_700_000_000_000


class Counting:
    """Adds each support row's count to the item after it: buy item2, be shown item3.

    `batches` has the size of each batch that was adapted. A support with `poison` in it raises,
    one with `nan` in it gives scores that are not finite.
    """

    def __init__(self, *, poison: int = 6, nan: int = 7) -> None:
        self.batches: list[int] = []
        self._poison, self._nan = poison, nan

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        self.batches.append(len(support["item"]))
        rows = support["count"] * support["mask"]
        if bool(((support["item"] == self._poison) & support["mask"]).any()):
            raise AdaptationError("The loss is not finite.")
        added = torch.zeros(len(rows), len(ITEM_IDS))
        added.scatter_add_(1, (support["item"] + 1) % len(ITEM_IDS), rows)
        broken = ((support["item"] == self._nan) & support["mask"]).any(dim=1)
        added[broken] = torch.nan
        return {"added": added}

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        return meta_params["prior"] + state["added"]


@dataclass
class SmallArtifact:
    path: Path = Path("small")
    model_version: str = "small-1"
    event_types: tuple[str, ...] = ("purchase", "wish")
    view: SupportView = field(default_factory=lambda: SupportView(100, (0,)))
    algorithm: Counting = field(default_factory=Counting)
    catalogue: Catalogue = field(
        default_factory=lambda: Catalogue(pa.table({"item_id": list(ITEM_IDS)}))
    )
    # item0 is best for anybody, then item1, ...
    meta_params: Params = field(
        default_factory=lambda: {"prior": torch.linspace(0.8, 0.1, len(ITEM_IDS))}
    )


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def artifact() -> SmallArtifact:
    return SmallArtifact()


@pytest.fixture
def recommender(artifact: SmallArtifact, executor: ThreadPoolExecutor) -> Recommender:
    return Recommender(artifact, executor=executor, max_batch=16)  # type: ignore[arg-type]


@pytest.fixture
def service(recommender: Recommender) -> Service:
    made = Service(
        MemoryEventStore(retained_events=100),
        durable=False,
        limits=LimitsConfig(max_body_bytes=4096, max_events=5, max_recommendations=20),
        state_cache_bytes=1 << 20,
        now_ms=lambda: NOW_MS,
    )
    made.use({"default": TenantModels({"default": recommender}, "default")})
    return made


@pytest.fixture
def call(service: Service) -> Callable[..., httpx.Response]:
    """`call("POST", "/v1/events", json=...)` against the application, without a server."""
    app = create_app(service, max_body_bytes=4096)

    def request(method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return request
