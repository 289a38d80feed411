"""The real server: Ray Serve, HAProxy where it is installed, two replicas, SQLite on disk."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from raymeta import runtime
from raymeta.artifact import load_artifact
from raymeta.data.events import History, support_from_events
from raymeta.errors import ArtifactError, ResourceError
from raymeta.observability.metrics import METRICS
from raymeta.serve import local
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.served import Served, config_of

pytestmark = pytest.mark.ray


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


def scraped(name: str) -> list[tuple[dict[str, str], float]]:
    """The series of a name at the metrics port of this machine's Ray node, as Prometheus has it."""
    import ray

    (node,) = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    text = httpx.get(url, headers=runtime.auth_headers(), timeout=30.0).text
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]


def test_rays_metrics_port_has_the_numbers_of_every_replica(served: Served) -> None:
    served.wait_until_settled()
    before = sum(value for _, value in scraped("ray_raymeta_answers_total"))
    for number in range(40):
        served.recommend(f"counted-{number}", n=1)
    names = {name for metric in METRICS for name in metric.series()}
    deadline = time.monotonic() + 60
    answers: list[tuple[dict[str, str], float]] = []
    while sum(value for _, value in answers) < before + 40:  # sent every ten seconds
        assert time.monotonic() < deadline, answers
        time.sleep(1.0)
        answers = scraped("ray_raymeta_answers_total")
    assert sum(value for _, value in answers) == before + 40
    live = served.client.get("/ops/live").raise_for_status().json()
    lists = sum(variant["lists"] for variant in live["since_start"]["answers"])
    assert live["replicas"] == 2
    assert lists >= before + 40
    assert {"/v1/recommend", "/readyz"} <= {one["route"] for one in live["since_start"]["routes"]}
    assert live["since_start"]["freshness"]["items scored"]["p99_ms"] > 0
    workers = {labels["WorkerId"] for labels, _ in scraped("ray_raymeta_model_info")}
    assert len(workers) >= 2
    seconds = scraped("ray_raymeta_request_seconds_count")
    assert {"/v1/recommend", "/readyz"} <= {labels["route"] for labels, _ in seconds}
    assert {"ray_raymeta_store_bytes", "ray_raymeta_request_seconds_bucket"} <= names
    assert all(value > 0 for _, value in scraped("ray_raymeta_store_bytes"))


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


def test_no_answer_after_an_acknowledgement_is_stale_on_either_replica(served: Served) -> None:
    """Without affinity: no request carries a session id."""
    items = list(load_artifact(served.artifact).catalogue.item_ids)

    async def live(client: httpx.AsyncClient, user: str) -> int:
        stale = 0
        for number in range(25):
            event = {"item_id": items[number % len(items)], "event_type": "purchase"}
            added = await client.post("/v1/events", json={"user_id": user, "events": [event]})
            answer = await client.post("/v1/recommend", json={"user_id": user, "n": 1})
            stale += answer.json()["state_version"] < added.json()["state_version"]
            stale += answer.json()["n_support"] < number + 1
        return stale

    async def all_users() -> int:
        async with httpx.AsyncClient(base_url=served.client.base_url, timeout=30.0) as client:
            return sum(await asyncio.gather(*(live(client, f"fresh{n}") for n in range(12))))

    assert asyncio.run(all_users()) == 0


def test_an_erased_user_is_nobody_on_either_replica(served: Served) -> None:
    items = list(load_artifact(served.artifact).catalogue.item_ids[:3])
    served.add("leaves", *items)
    for _ in range(4):
        assert served.recommend("leaves")["n_support"] == 3
    receipt = served.client.delete("/v1/users/leaves").json()
    assert receipt["events_erased"] == 3
    for _ in range(8):
        answer = served.recommend("leaves")
        assert (answer["fallback"], answer["n_support"]) == ("prior", 0)
        assert served.client.get("/v1/users/leaves").status_code == 404


def test_a_changed_item_is_so_on_either_replica_at_once(served: Served) -> None:
    best = served.recommend("window", n=1)["items"][0]["id"]
    closed = served.client.patch(f"/v1/items/{best}", json={"available": False}).json()
    for _ in range(8):
        answer = served.recommend("window", n=5)
        assert answer["catalogue_version"] == closed["catalogue_version"]
        assert best not in {item["id"] for item in answer["items"]}
    served.client.patch(f"/v1/items/{best}", json={"available": True})
    for _ in range(8):
        assert served.recommend("window", n=1)["items"][0]["id"] == best


def test_all_that_listens_in_front_is_this_machines_own(served: Served) -> None:
    if not runtime.runs_haproxy():
        pytest.skip("HAProxy is not installed")
    folder = str(runtime._haproxy_folder())
    proxies = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(folder in word for word in process.info["cmdline"] or ())
    ]
    addresses = {
        connection.laddr.ip
        for process in proxies
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_another_process_can_connect_to_the_cluster(served: Served) -> None:
    script = (
        "import sys\n"
        "from raymeta import runtime\n"
        "with runtime.session(sys.argv[1]) as cluster:\n"
        "    assert not cluster.started_here\n"
        "    print(cluster.dashboard_url, runtime.num_alive_nodes())\n"
    )
    connected = subprocess.run(
        [sys.executable, "-c", script, served.cluster.address],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert connected.stdout.split() == [served.cluster.dashboard_url, "1"]
    assert served.recommend("anybody")["items"]


def test_a_burst_beyond_the_queue_is_refused_and_the_rest_is_answered(served: Served) -> None:
    small = served.config.model_copy(
        update={
            "replicas": served.config.replicas.model_copy(
                update={"max_ongoing_requests": 2, "max_queued_requests": 2}
            ),
            "state_cache_bytes": 0,
        }
    )
    address = {"host": "127.0.0.1", "port": served.port}
    models = local.deploy(small, served.cluster, **address)
    served.wait_until_settled()

    async def burst() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=served.client.base_url, timeout=30.0, limits=httpx.Limits(max_connections=200)
        ) as client:
            body = {"user_id": "u", "n": 500, "events": [{"item_id": "x", "event_type": "view"}]}
            return await asyncio.gather(
                *(client.post("/v1/recommend", json=body) for _ in range(150))
            )

    responses = asyncio.run(burst())
    refused = [response for response in responses if response.status_code == 503]
    assert refused
    assert {response.headers.get("retry-after") for response in refused} == {"1"}
    assert {response.status_code for response in responses} == {200, 503}
    local.deploy(served.config, served.cluster, **address)
    served.wait_until_settled()
    local.wait_until_ready(served.cluster, models=models, **address)


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
    served.wait_until_settled()  # a reload of HAProxy closes connections that were kept
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
            if answer["fallback"] != "store":  # not opened in time
                break
        except (AssertionError, httpx.HTTPError):
            time.sleep(0.5)
    assert answer["state_version"] == added["state_version"] == 1, answer
    assert answer["n_support"] == 1
    assert served.add("killed", item, event_id="once")["duplicates"] == 1


def test_replicas_that_restart_while_a_bad_artifact_is_declared_answer_with_the_last_good_one(
    served: Served, tmp_path: Path
) -> None:
    good = served.client.get("/readyz").json()["models"]
    broken = tmp_path / "broken"
    broken.mkdir()
    declared = {
        "name": local.APPLICATION_NAME,
        "route_prefix": "/",
        "import_path": "raymeta.serve.app:build_app",
        "args": served.config.fixed_settings(),
        "deployments": [
            {
                "name": "Recommender",
                "user_config": config_of(broken, tmp_path / "unused").model_table(),
            }
        ],
    }
    # as Serve's own tools would: they cannot look into the artifact first
    options = {"host": "127.0.0.1", "port": served.port, "request_timeout_s": 10.0}
    local._declare(served.cluster, [declared], http_options=options)
    served.wait_until_settled()
    assert served.client.get("/readyz").json()["models"] == good
    before = served.replica_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while served.replica_pids() & before or len(served.replica_pids()) < 2:
        assert time.monotonic() < deadline, "the replicas did not come back"
        time.sleep(0.5)
    served.wait_until_settled()
    for _ in range(4):
        assert served.client.get("/readyz").json()["models"] == good
        assert served.recommend("anybody")["items"]
    rolled_back = local.deploy(served.config, served.cluster, host="127.0.0.1", port=served.port)
    local.wait_until_ready(served.cluster, host="127.0.0.1", port=served.port, models=rolled_back)


def test_a_port_outside_what_this_machine_has_is_refused() -> None:
    with pytest.raises(ResourceError, match="cannot be used"):
        runtime.require_free_port("203.0.113.7", 8000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ResourceError, match="is in use"):
            runtime.require_free_port("127.0.0.1", taken.getsockname()[1])
