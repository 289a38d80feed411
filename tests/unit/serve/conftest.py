"""A service around a small artifact in memory, whose right answers can be written down by hand."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from raymeta.config.serving import LimitsConfig, RetentionConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import SupportView
from raymeta.data.features import FeatureVocab
from raymeta.errors import AdaptationError
from raymeta.serve.access import Keys
from raymeta.serve.ingress import create_app
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.recommender import Recommender
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import EventStore, Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.types import Examples, Params, TaskState
from tests.helpers.clocks import Clock

ITEM_IDS = tuple(f"item{n}" for n in range(8))
NOW_MS = 1_700_000_000_000
KINDS = {"category": "categorical", "price": "numeric"}


def items_table() -> pa.Table:
    """item0 is red and costs 0, item1 blue and 1, ..."""
    return pa.table(
        {
            "item_id": list(ITEM_IDS),
            "category": ["red" if n % 2 == 0 else "blue" for n in range(len(ITEM_IDS))],
            "price": [float(n) for n in range(len(ITEM_IDS))],
        }
    )


class Counting:
    """Adds each support row's count to the item after it: buy item2, be shown item3.

    `batches` has the size of each batch that was adapted. A support with `poison` in it raises,
    one with `nan` in it gives scores that are not finite.
    """

    def __init__(self, *, num_items: int, poison: int = 6, nan: int = 7) -> None:
        self.num_items = num_items
        self.batches: list[int] = []
        self._poison, self._nan = poison, nan

    def tables(self) -> Params:
        """Red items lie one way, blue ones the other."""
        angle = torch.arange(self.num_items) % 2
        return {"item_vectors": torch.stack([1.0 - angle, angle * 1.0], dim=1)}

    def adapt(self, meta_params: Params, support: Examples) -> TaskState:
        self.batches.append(len(support["item"]))
        rows = support["count"] * support["mask"]
        if bool(((support["item"] == self._poison) & support["mask"]).any()):
            raise AdaptationError("The loss is not finite.")
        added = torch.zeros(len(rows), self.num_items)
        added.scatter_add_(1, (support["item"] + 1) % self.num_items, rows)
        broken = ((support["item"] == self._nan) & support["mask"]).any(dim=1)
        added[broken] = torch.nan
        return {"added": added}

    def score(
        self, meta_params: Params, state: TaskState, candidates: Tensor | None = None
    ) -> Tensor:
        scores = meta_params["prior"] + state["added"]
        return scores if candidates is None else scores.gather(1, candidates)


@dataclass(frozen=True)
class SmallArtifact:
    path: Path = Path("small")
    model_version: str = "small-1"
    manifest: dict[str, Any] = field(default_factory=lambda: {"metrics": {"ndcg": 0.5}})
    event_types: tuple[str, ...] = ("purchase", "wish")
    view: SupportView = field(default_factory=lambda: SupportView(100, (0,)))
    algorithm: Counting = field(default_factory=lambda: Counting(num_items=len(ITEM_IDS)))
    catalogue: Catalogue = field(
        default_factory=lambda: Catalogue(
            items_table(), KINDS, FeatureVocab.count(items_table(), KINDS, min_rows=1)
        )
    )
    # item0 is best for anybody, then item1, ...
    meta_params: Params = field(
        default_factory=lambda: {"prior": torch.linspace(0.8, 0.1, len(ITEM_IDS))}
    )
    user_vocab: FeatureVocab | None = None
    item_encoder: object | None = "its features are its prior"
    matcher: None = None

    def with_items(self, items: pa.Table) -> "SmallArtifact":
        """A new item is as good for anybody as it is cheap: 0.05 at price 0."""
        prior = 0.05 - torch.tensor([float(p or 0.0) for p in items["price"].to_pylist()]) / 1e4
        added = items.select(["item_id", "category", "price"])
        count = len(self.catalogue) + items.num_rows
        return replace(
            self,
            catalogue=replace(
                self.catalogue,
                items=pa.concat_tables([self.catalogue.items, added], promote_options="default"),
            ),
            algorithm=Counting(num_items=count),
            meta_params={"prior": torch.cat([self.meta_params["prior"], prior])},
        )


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def maker(executor: ThreadPoolExecutor) -> Maker:
    return Maker(executor, max_batch=16, generator=np.random.default_rng(0))


@pytest.fixture
def artifact() -> SmallArtifact:
    return SmallArtifact()


@pytest.fixture
def recommender(artifact: SmallArtifact, maker: Maker) -> Recommender:
    return maker.recommender(artifact, {}, version=0)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW_MS)


@pytest.fixture
def store(clock: Clock) -> EventStore:
    return MemoryEventStore(retention=Retention(events=100), now_ms=clock)


@pytest.fixture
def make_service(
    store: EventStore, maker: Maker, artifact: SmallArtifact, clock: Clock
) -> Callable[..., Service]:
    """A service of one tenant; keyword arguments are limits, or `keys`."""

    def make(*, keys: Keys | None = None, of: EventStore | None = None, **limits: Any) -> Service:
        made = Service(
            store if of is None else of,
            maker,
            keys=keys or Keys(),
            limits=LimitsConfig(
                **{"max_body_bytes": 4096, "max_events": 5, "max_recommendations": 20, **limits}
            ),
            retention=RetentionConfig(),
            state_cache_bytes=1 << 20,
            now_ms=clock,
        )
        variant = first_variant(artifact, maker)  # type: ignore[arg-type]
        made.use(
            {name: TenantModels({"default": variant}, "default") for name in ("default", "other")}
        )
        return made

    return make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


def caller(service: Service) -> Callable[..., httpx.Response]:
    """`call("POST", "/v1/events", json=...)` against the application, without a server."""
    app = create_app(service)

    def request(method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return request


@pytest.fixture
def call(service: Service) -> Callable[..., httpx.Response]:
    return caller(service)
