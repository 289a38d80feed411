"""The client against the real server: its routes, another product's, and a killed replica."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psutil
import pytest

from raymeta import runtime
from raymeta.artifact import load_artifact
from raymeta.client import Client, Event
from raymeta.serve import local
from tests.helpers.artifacts import tiny_artifact

pytestmark = pytest.mark.ray

NUM_USERS = 8
NUM_EVENTS = 100
KILLED_AFTER = 30


@dataclass
class Served:
    url: str
    cluster: runtime.Cluster
    items: tuple[str, ...]

    def replica_pids(self) -> list[int]:
        application = local._details(self.cluster)["applications"][local.APPLICATION_NAME]
        replicas = application["deployments"]["Recommender"]["replicas"]
        return [replica["pid"] for replica in replicas if replica["state"] == "RUNNING"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("client")
    artifact = tiny_artifact(folder / "artifact")
    with (
        runtime.session(num_cpus=2) as cluster,
        local.serve_artifact(
            artifact,
            port=runtime.free_port(),
            num_replicas=2,
            store=folder / "events.sqlite",
            compat=["gorse", "personalize"],
        ) as url,
    ):
        yield Served(url, cluster, load_artifact(artifact).catalogue.item_ids)


def test_another_products_requests_and_the_clients_are_about_the_same_users(
    served: Served,
) -> None:
    feedback = {
        "FeedbackType": "purchase",
        "UserId": "ann",
        "ItemId": served.items[0],
        "Timestamp": "2022-02-24T00:00:00Z",
    }
    kept = httpx.post(f"{served.url}/api/feedback", json=[feedback])
    assert (kept.status_code, kept.json()) == (200, {"RowAffected": 1})
    with Client(served.url) as client:
        answer = client.recommend("ann", n=3)
        assert (answer.n_support, answer.state_version) == (1, 1)
    ids = httpx.get(f"{served.url}/api/recommend/ann?n=3").json()
    assert ids == [item.id for item in answer.items]
    asked = {"userId": "ann", "inputList": ids[::-1]}
    ranked = httpx.post(f"{served.url}/personalize-ranking", json=asked).json()
    assert [item["itemId"] for item in ranked["personalizedRanking"]] == ids
    assert httpx.post(f"{served.url}/feedback", json={}).status_code == 404  # Metarank is not named


def test_no_event_is_lost_or_counted_twice_while_a_replica_is_killed(served: Served) -> None:
    """With the client's own retries no call fails, those on their way to the replica included."""

    def shop(user: int) -> int:
        with Client(served.url) as client:
            for number in range(NUM_EVENTS):
                if (user, number) == (0, KILLED_AFTER):
                    psutil.Process(served.replica_pids()[0]).send_signal(signal.SIGKILL)
                item = served.items[number % len(served.items)]
                bought = [Event(item_id=item, event_type="purchase")]
                kept = client.events(f"user{user}", bought)
                assert (kept.accepted, kept.duplicates, kept.state_version) == (1, 0, number + 1)
            return client.user_state(f"user{user}").n_events

    with ThreadPoolExecutor(NUM_USERS) as threads:
        assert list(threads.map(shop, range(NUM_USERS))) == [NUM_EVENTS] * NUM_USERS
