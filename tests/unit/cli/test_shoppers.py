"""The demo's experiment on a shop whose groups of items only adapting can tell apart."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.cli.shoppers import ADAPTED, UNADAPTED, save_unadapted, shop
from raymeta.client import Client, Event
from raymeta.config.serving import LimitsConfig, RetentionConfig
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.serve.access import Keys
from raymeta.serve.ingress import create_app
from raymeta.serve.models import Maker, TenantModels, first_variant
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.http import listening

pytestmark = pytest.mark.slow

Shop = tuple[str, Artifact, TaskSplit]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    path = tiny_artifact(tmp_path_factory.mktemp("shoppers") / "artifact")
    artifact = load_artifact(path)
    split = load_task_split(path.with_name("artifact-data"), artifact.experiment.data)
    unadapted = load_artifact(save_unadapted(artifact, split, path.with_name(UNADAPTED)))
    with ThreadPoolExecutor(1) as executor:
        maker = Maker(executor, max_batch=16)
        service = Service(
            MemoryEventStore(retention=Retention(events=1000)),
            maker,
            keys=Keys(),
            limits=LimitsConfig(),
            retention=RetentionConfig(),
            state_cache_bytes=1 << 20,
        )
        variants = {
            name: first_variant(one, maker)
            for name, one in ((ADAPTED, artifact), (UNADAPTED, unadapted))
        }
        traffic = dict.fromkeys(variants, 1.0)
        service.use({"default": TenantModels(variants, ADAPTED, traffic)})
        with listening(create_app(service)) as url:
            yield url, artifact, split


def test_the_unadapted_variant_gives_everybody_what_anybody_gets(served: Shop) -> None:
    url, artifact, _ = served
    bought = [Event(item_id=artifact.catalogue.item_ids[0], event_type="purchase")]
    with Client(url) as client:
        nobody = client.recommend("nobody", variant=ADAPTED, exclude_seen=False)
        adapted = client.recommend("ann", variant=ADAPTED, events=bought, exclude_seen=False)
        same = client.recommend("ann", variant=UNADAPTED, exclude_seen=False)
    assert same.fallback == "prior"
    assert [item.id for item in same.items] == [item.id for item in nobody.items]
    assert [item.id for item in adapted.items] != [item.id for item in nobody.items]


def test_every_household_is_counted_and_the_adapted_find_more(served: Shop) -> None:
    url, artifact, split = served
    found = shop(url, artifact, split.test, run="household")
    assert set(found) == {ADAPTED, UNADAPTED}
    # all windows are over, so that none is left out
    assert sum(variant["users"] for variant in found.values()) == len(split.test)
    share = {
        name: variant["conversions"] / variant["impressions"] for name, variant in found.items()
    }
    assert share[ADAPTED] > 1.5 * share[UNADAPTED] > 0
