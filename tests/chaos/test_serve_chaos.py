"""Processes of a running service killed under load, and models swapped: nothing that was answered
for is lost.

Each arm runs the same clients, who send an event again, under its id, until it is answered for. A
baseline arm without a fault stands beside them. What is counted is printed (`pytest -s`).
"""

import asyncio
import json
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from raymeta import runtime
from raymeta.artifact import load_artifact
from raymeta.config.serving import ModelTable, ServingConfig
from raymeta.serve import local
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.shoppers import Shopper, num_acknowledged, shop, shop_through, told

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_SHOPPERS = 6
LOAD_S = 12.0
FAULT_AT_S = 3.0


@dataclass
class Service:
    url: str
    cluster: runtime.Cluster
    items: tuple[str, ...]
    config: ServingConfig
    port: int

    def kill_a_replica(self) -> None:
        application = local._details(self.cluster)["applications"][local.APPLICATION_NAME]
        replicas = application["deployments"]["Recommender"]["replicas"]
        running = [r["pid"] for r in replicas if r["state"] == "RUNNING"]
        psutil.Process(running[0]).send_signal(signal.SIGKILL)

    def kill_the_controller(self) -> None:
        # among this process's own: other clusters may run on this machine
        for process in psutil.Process().children(recursive=True):
            if "ServeController" in " ".join(process.cmdline()):
                process.kill()
                return
        raise AssertionError("no controller runs")

    def kill_haproxy(self) -> None:
        folder = str(runtime._haproxy_folder())
        for process in psutil.process_iter(["cmdline"]):
            if any(folder in word for word in process.info["cmdline"] or ()):
                process.kill()

    def kill_the_python_proxy(self) -> None:
        for process in psutil.Process().children(recursive=True):
            if "ProxyActor" in " ".join(process.cmdline()):
                process.kill()
                return
        raise AssertionError("no proxy runs")

    def declare(self, artifact: Path) -> None:
        """As Serve's own tools would: without a look into the artifact first."""
        table = ModelTable.parse(
            {"tenants": {"default": {"variants": {"default": str(artifact)}}}}, source="test"
        )
        declared = {
            "name": local.APPLICATION_NAME,
            "route_prefix": "/",
            "import_path": "raymeta.serve.app:build_app",
            "args": self.config.fixed_settings(),
            "deployments": [{"name": "Recommender", "user_config": table.model_dump(mode="json")}],
        }
        options = {"host": "127.0.0.1", "port": self.port, "request_timeout_s": 10.0}
        local._declare(self.cluster, [declared], http_options=options)

    def nothing(self) -> None: ...


FAULTS: dict[str, Callable[[Service], None]] = {
    "baseline": Service.nothing,
    "replica": Service.kill_a_replica,
    "controller": Service.kill_the_controller,
    "haproxy": Service.kill_haproxy,
    "python proxy": Service.kill_the_python_proxy,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("chaos")
    tiny_artifact(folder / "artifact")
    config = ServingConfig.parse(
        {
            "tenants": {"default": {"variants": {"default": str(folder / "artifact")}}},
            "store": {"kind": "sqlite", "path": str(folder / "events.sqlite")},
            "replicas": {"num_replicas": 2, "num_cpus": 0.25},
        },
        source="test",
    )
    port = runtime.free_port()
    with (
        runtime.session(num_cpus=2) as cluster,
        local.serving(config, host="127.0.0.1", port=port) as url,
    ):
        items = load_artifact(folder / "artifact").catalogue.item_ids
        yield Service(url, cluster, items, config, port)


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_answered_for_is_lost(fault: str, service: Service) -> None:
    absent = {"haproxy": not runtime.runs_haproxy(), "python proxy": runtime.runs_haproxy()}
    if absent.get(fault, False):
        pytest.skip(f"there is no {fault} in front of this service")
    shoppers = [Shopper(f"{fault}{number}".replace(" ", "-")) for number in range(NUM_SHOPPERS)]
    asyncio.run(
        shop_through(
            service.url,
            shoppers,
            service.items,
            lambda: FAULTS[fault](service),
            load_s=LOAD_S,
            fault_at_s=FAULT_AT_S,
        )
    )
    print("\n" + told(fault, shoppers))
    assert sum(shopper.stale for shopper in shoppers) == 0
    assert num_acknowledged(shoppers) > 5 * NUM_SHOPPERS


def test_models_are_swapped_refused_and_rolled_back_without_a_failed_request(
    service: Service, tmp_path: Path
) -> None:
    """Whoever is not known gets what one model gives anybody, and that model's name beside it."""
    first, second = Path(service.config.tenants["default"].variants["default"]), tmp_path / "second"
    tiny_artifact(second, seed=1)
    broken = tmp_path / "broken"
    broken.mkdir()
    lists: dict[str, set[str]] = defaultdict(set)
    counts: dict[str, int] = defaultdict(int)
    shoppers = [Shopper(f"swap{number}") for number in range(NUM_SHOPPERS)]

    async def look(until: float) -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=5.0) as http:
            while time.monotonic() < until:
                response = await http.post("/v1/recommend", json={"user_id": "nobody", "n": 5})
                assert response.status_code == 200, response.text
                answer = response.json()
                scored = [(item["id"], item["score"]) for item in answer["items"]]
                lists[answer["model_version"]].add(json.dumps(scored))
                counts[answer["model_version"]] += 1

    def versions() -> dict[str, Any]:
        models: dict[str, Any] = httpx.get(f"{service.url}/readyz").json()["models"]
        return models

    async def swap() -> None:
        until = time.monotonic() + 16.0
        lives = [shop(service.url, s, service.items, until) for s in shoppers]
        running = asyncio.gather(look(until), look(until), *lives)
        before = await asyncio.to_thread(versions)
        for artifact, answers in ((second, second), (broken, second), (first, first)):
            await asyncio.sleep(3.0)
            await asyncio.to_thread(service.declare, artifact)
            wanted = load_artifact(answers).model_version
            deadline = time.monotonic() + 30.0
            while await asyncio.to_thread(versions) != {"default": {"default": wanted}}:
                assert time.monotonic() < deadline, f"{artifact.name} did not answer"
                await asyncio.sleep(0.1)
        assert await asyncio.to_thread(versions) == before
        await running

    asyncio.run(swap())
    print("\n" + told("swap, bad artifact, rollback", shoppers), dict(counts))
    tries = [shopper.tries for shopper in shoppers]
    assert all(set(one) == {"200"} for one in tries), tries
    assert set(lists) == {load_artifact(path).model_version for path in (first, second)}
    assert all(len(of_a_version) == 1 for of_a_version in lists.values())
    assert sum(shopper.stale for shopper in shoppers) == 0
