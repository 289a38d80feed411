"""The store of a running service slow, or lost at any moment of a call, under load.

The store is a real Redis server behind a link that the test breaks (`tests.helpers.links`). Nothing
that was answered for may be lost, counted twice or come back after an erasure. What is counted is
printed (`pytest -s`).
"""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raymeta import runtime
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.links import Link, Moment
from tests.helpers.servers import Servers
from tests.helpers.services import FAULT_AT_S, LOAD_S, served, through

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_artifact(tmp_path_factory.mktemp("store-chaos") / "artifact")


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as found:
        yield found


@pytest.fixture(scope="module")
def cluster() -> Iterator[runtime.Cluster]:
    with runtime.session(num_cpus=2) as started:
        yield started


@pytest.fixture(scope="module")
def linked(
    artifact: Path, servers: Servers, cluster: runtime.Cluster
) -> Iterator[tuple[str, Link]]:
    """A service whose replicas reach Redis through a link."""
    server = servers.redis()
    with Link(server.port).running() as link:
        store = {"kind": "redis", "url": f"redis://127.0.0.1:{link.port}/0", "prefix": "chaos"}
        with served(artifact, store) as url:
            yield url, link


def test_a_slow_store_slows_answers_and_makes_none_wrong(
    linked: tuple[str, Link], artifact: Path
) -> None:
    url, link = linked
    link.delay_s = 0.2
    try:
        shoppers = through(url, artifact, "store slow by 200 ms", lambda: None)
    finally:
        link.delay_s = 0.0
    assert all(set(shopper.tries) == {"200"} for shopper in shoppers)


def test_a_store_that_takes_too_long_is_done_without_where_that_can_be_said(
    linked: tuple[str, Link],
) -> None:
    url, link = linked
    event = {"event_id": "late", "item_id": "i000", "event_type": "purchase"}
    link.delay_s = 4.0
    try:
        with httpx.Client(base_url=url, timeout=20.0) as http:
            read = http.post("/v1/recommend", json={"user_id": "late", "n": 3})
            written = http.post("/v1/events", json={"user_id": "late", "events": [event]})
    finally:
        link.delay_s = 0.0
    assert (read.status_code, read.json()["fallback"]) == (200, "store")
    assert written.status_code in (408, 503)


@pytest.mark.parametrize("moment", ["before", "after", "in flight"])
def test_calls_that_break_are_sent_again_and_count_once(
    moment: Moment, linked: tuple[str, Link], artifact: Path
) -> None:
    url, link = linked
    link.num_broken, link.share = 0, 0.05

    def breaks() -> None:
        link.breaks = moment
        time.sleep(LOAD_S - FAULT_AT_S - 2.0)
        link.breaks = None

    through(url, artifact, f"calls broken {moment}", breaks)
    print(f"{link.num_broken} calls of the store were broken")
    assert link.num_broken > 5
