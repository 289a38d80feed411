"""The real server: Ray Serve, HAProxy where it is installed, two replicas, SQLite on disk."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from raymeta import runtime
from raymeta.artifact import load_artifact
from raymeta.config.serving import ServingConfig
from raymeta.data.events import History, support_from_events
from raymeta.errors import ArtifactError, ResourceError
from raymeta.serve import local
from tests.helpers.artifacts import tiny_artifact

pytestmark = pytest.mark.ray


@dataclass
class Served:
    client: httpx.Client
    cluster: runtime.Cluster
    artifact: Path
    config: ServingConfig
    port: int

    def replica_pids(self) -> set[int]:
        application = local._details(self.cluster)["applications"][local.APPLICATION_NAME]
        replicas = application["deployments"]["Recommender"]["replicas"]
        return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}

    def recommend(self, user_id: str, **values: Any) -> dict[str, Any]:
        response = self.client.post("/v1/recommend", json={"user_id": user_id, **values})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def add(self, user_id: str, *items: str, **values: Any) -> dict[str, Any]:
        events = [{"item_id": i, "event_type": "purchase", **values} for i in items]
        response = self.client.post("/v1/events", json={"user_id": user_id, "events": events})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body


def config_of(artifact: Path, store: Path) -> ServingConfig:
    return ServingConfig.parse(
        {
            "tenants": {"default": {"variants": {"default": str(artifact)}}},
            "store": {"kind": "sqlite", "path": str(store)},
            "replicas": {"num_replicas": 2, "num_cpus": 0.25},
        },
        source="test",
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    artifact = folder / "artifact"
    tiny_artifact(artifact)
    config = config_of(artifact, folder / "events.sqlite")
    port = runtime.free_port()
    with (
        runtime.session(num_cpus=2) as cluster,
        local.serving(config, host="127.0.0.1", port=port) as url,
        httpx.Client(base_url=url, timeout=30.0) as client,
    ):
        yield Served(client, cluster, artifact, config, port)


def expected_scores(artifact_path: Path, items: list[str]) -> dict[str, float]:
    """What the artifact's own algorithm gives for purchases of `items`, one a millisecond."""
    artifact = load_artifact(artifact_path)
    count = len(items)
    history = History(
        item=np.array([artifact.catalogue.index_of[i] for i in items], np.int64),
        event_type=np.full(count, artifact.event_types.index("purchase"), np.int64),
        timestamp_ms=np.arange(count, dtype=np.int64),
        value=np.full(count, np.nan, np.float32),
        visit=np.full(count, -1, np.int64),
    )
    state = artifact.algorithm.adapt(
        artifact.meta_params, support_from_events([history], artifact.view)
    )
    scores = artifact.algorithm.score(artifact.meta_params, state)[0]
    return dict(zip(artifact.catalogue.item_ids, scores.tolist(), strict=True))


def test_an_unknown_user_gets_the_prior(served: Served) -> None:
    answer = served.recommend("new", n=500)
    expected = expected_scores(served.artifact, [])
    assert answer["fallback"] == "prior"
    assert {item["id"]: item["score"] for item in answer["items"]} == pytest.approx(
        expected, abs=1e-5
    )


def test_each_acknowledged_event_is_in_the_next_answer_with_the_algorithms_scores(
    served: Served,
) -> None:
    items = list(load_artifact(served.artifact).catalogue.item_ids[:5])
    for number, item in enumerate(items, start=1):
        added = served.add("story", item, timestamp=number - 1)
        expected = expected_scores(served.artifact, items[:number])
        for _ in range(4):  # both replicas
            answer = served.recommend("story", n=500, exclude_seen=False)
            scores = {entry["id"]: entry["score"] for entry in answer["items"]}
            assert answer["state_version"] == added["state_version"] == number
            assert answer["n_support"] == number
            assert scores == pytest.approx(expected, abs=1e-5)
    assert not {entry["id"] for entry in served.recommend("story", n=500)["items"]} & {*items}


def test_concurrent_users_get_what_they_would_get_alone(served: Served) -> None:
    items = list(load_artifact(served.artifact).catalogue.item_ids[:8])
    bought = {f"crowd{n}": [items[n % 8], items[(3 * n + 1) % 8]] for n in range(40)}

    async def send() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=served.client.base_url, timeout=30.0) as client:
            responses = await asyncio.gather(
                *(
                    client.post(
                        "/v1/recommend",
                        json={
                            "user_id": user,
                            "n": 500,
                            "exclude_seen": False,
                            "events": [
                                {"item_id": item, "event_type": "purchase", "timestamp": at}
                                for at, item in enumerate(of_user)
                            ],
                        },
                    )
                    for user, of_user in bought.items()
                )
            )
            return [response.json() for response in responses]

    for answer, of_user in zip(asyncio.run(send()), bought.values(), strict=True):
        scores = {entry["id"]: entry["score"] for entry in answer["items"]}
        assert scores == pytest.approx(expected_scores(served.artifact, of_user), abs=1e-5)


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b'{"user_id": "u"', 400, "The body is not JSON"),
        (b'{"user_id": "' + b"u" * (2 << 20) + b'"}', 413, "more than 1048576 bytes"),
        (b'{"user_id": "u", "n": 0}', 422, "n: Input should be greater than or equal to 1"),
    ],
)
def test_bad_bodies_get_a_problem(served: Served, content: bytes, status: int, text: str) -> None:
    headers = {"Content-Type": "application/json", "X-Request-ID": "given-1"}
    response = served.client.post("/v1/recommend", content=content, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get_list("x-request-id") == ["given-1"]
    assert response.json()["request_id"] == "given-1"
    assert text in response.json()["detail"]


def test_an_unknown_user_has_no_state_and_an_unknown_item_is_kept(served: Served) -> None:
    assert served.client.get("/v1/users/nobody/state").status_code == 404
    served.add("odd", "an item that no model knows")
    state = served.client.get("/v1/users/odd/state").json()
    assert (state["n_events"], state["n_support"]) == (1, 0)
    assert served.recommend("odd")["fallback"] == "prior"


def test_a_port_in_use_is_refused(served: Served, tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=f"Port {served.port} on 127.0.0.1 is in use"),
        local.serve_artifact(served.artifact, port=served.port, store=tmp_path / "e.sqlite"),
    ):
        pass


def test_a_swap_keeps_the_processes_and_the_users(served: Served, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny_artifact(other)
    item = load_artifact(other).catalogue.item_ids[0]
    before = served.replica_pids()
    version = served.add("stays", item)["state_version"]
    changed = served.config.model_copy(
        update={"tenants": config_of(other, tmp_path / "unused").tenants}
    )
    models = local.deploy(changed, served.cluster, host="127.0.0.1", port=served.port)
    local.wait_until_ready(served.cluster, host="127.0.0.1", port=served.port, models=models)
    assert served.recommend("stays")["state_version"] == version
    assert served.replica_pids() == before

    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(ArtifactError):
        local.deploy(
            served.config.model_copy(
                update={"tenants": config_of(broken, tmp_path / "unused").tenants}
            ),
            served.cluster,
            host="127.0.0.1",
            port=served.port,
        )
    assert served.recommend("stays")["state_version"] == version


def test_replicas_killed_right_after_the_answer_lose_nothing(served: Served) -> None:
    before = served.replica_pids()
    item = load_artifact(served.artifact).catalogue.item_ids[0]
    added = served.add("killed", item, event_id="once")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = served.recommend("killed")
            break
        except (AssertionError, httpx.HTTPError):
            time.sleep(0.5)
    assert answer["state_version"] == added["state_version"] == 1
    assert answer["n_support"] == 1
    assert served.add("killed", item, event_id="once")["duplicates"] == 1


def test_a_port_outside_what_this_machine_has_is_refused() -> None:
    with pytest.raises(ResourceError, match="cannot be used"):
        runtime.require_free_port("203.0.113.7", 8000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ResourceError, match="is in use"):
            runtime.require_free_port("127.0.0.1", taken.getsockname()[1])
