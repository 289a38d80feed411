"""A trained shop behind the page, and a browser in front of it; made once for all pages.

The shop has four groups of items that are bought together.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.algorithms import AnilConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.config.serving import LimitsConfig, RetentionConfig
from raymeta.serve.access import Keys
from raymeta.serve.households import find_households
from raymeta.serve.ingress import create_app
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.schemas.page import Households
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from raymeta.train.run import train_in_process
from tests.helpers.browser import Page, browser
from tests.helpers.http import listening
from tests.helpers.shops import SHOP, describe_items, write_grouped_shop

CATEGORIES = ("Apples", "Bread", "Cheese", "Drinks")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_grouped_shop(tmp_path_factory.mktemp("page") / "data")
    describe_items(folder, CATEGORIES)
    return folder


@pytest.fixture(scope="session")
def artifact(data: Path) -> Artifact:
    experiment = ExperimentConfig(
        name="page",
        data=SHOP,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=AnilConfig(inner_lr=1.0, num_inner_steps=2),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=4, validate_every=2),
    )
    train_in_process(experiment, data, out=data.with_name("artifact"))
    return load_artifact(data.with_name("artifact"))


Serving = Callable[..., Any]


@pytest.fixture(scope="session")
def serving(artifact: Artifact) -> Iterator[Serving]:
    """`with serving(keys=..., households=...) as url`."""
    with ThreadPoolExecutor(1) as executor:
        maker = Maker(executor, max_batch=16, generator=np.random.default_rng(0))
        variant = first_variant(artifact, maker)

        def start(
            *,
            keys: Keys | None = None,
            households: Households | None = None,
            exported: Callable[[], list[str]] | None = None,
        ) -> Any:
            service = Service(
                MemoryEventStore(retention=Retention(events=1000)),
                maker,
                keys=keys or Keys(),
                limits=LimitsConfig(),
                retention=RetentionConfig(),
                state_cache_bytes=1 << 20,
                households=households,
                exported=exported,
            )
            service.use({"default": TenantModels({"default": variant}, "default")})
            return listening(create_app(service))

        yield start


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def households(artifact: Artifact, data: Path) -> Households:
    return find_households(artifact, data)


@pytest.fixture(scope="session")
def url(serving: Serving, households: Households) -> Iterator[str]:
    with serving(households=households) as address:
        yield address


@pytest.fixture
def page(driver: Any, url: str) -> Iterator[Page]:
    opened = Page(driver, url)
    opened.emulate()
    opened.open()
    yield opened
    assert opened.complaints() == []
