"""Processes of a running service killed under load: nothing that was answered for is lost.

Each arm runs the same clients, who send an event again, under its id, until it is answered for. A
baseline arm without a fault stands beside them. What is counted is printed (`pytest -s`).
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from raymeta import runtime
from raymeta.artifact import load_artifact
from raymeta.config.serving import ServingConfig
from raymeta.serve import local
from tests.helpers.artifacts import tiny_artifact

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_CLIENTS = 6
LOAD_S = 12.0
FAULT_AT_S = 3.0
GIVE_UP_S = 60.0


@dataclass
class Service:
    url: str
    cluster: runtime.Cluster
    items: tuple[str, ...]

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

    def nothing(self) -> None: ...


FAULTS: dict[str, Callable[[Service], None]] = {
    "baseline": Service.nothing,
    "replica": Service.kill_a_replica,
    "controller": Service.kill_the_controller,
    "haproxy": Service.kill_haproxy,
}


@dataclass
class Client:
    """One user; knows what was answered for."""

    name: str
    acknowledged: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    version: int = 0
    stale: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0


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
    with (
        runtime.session(num_cpus=2) as cluster,
        local.serving(config, host="127.0.0.1", port=runtime.free_port()) as url,
    ):
        yield Service(url, cluster, load_artifact(folder / "artifact").catalogue.item_ids)


async def insist(
    http: httpx.AsyncClient, client: Client, method: str, path: str, body: Any = None
) -> dict[str, Any]:
    """Sends a request until it is answered well."""
    started = time.monotonic()
    while True:
        try:
            response = await http.request(method, path, json=body)
            client.tries[str(response.status_code)] += 1
            if response.status_code == 200:
                client.longest_s = max(client.longest_s, time.monotonic() - started)
                answer: dict[str, Any] = response.json()
                return answer
        except httpx.HTTPError as error:
            client.tries[type(error).__name__] += 1
        assert time.monotonic() - started < GIVE_UP_S, f"{method} {path} was never answered"
        await asyncio.sleep(0.05)


async def live(url: str, client: Client, items: tuple[str, ...], until: float) -> None:
    rng = random.Random(client.name)
    number = 0
    async with httpx.AsyncClient(base_url=url, timeout=5.0) as http:
        while time.monotonic() < until:
            number += 1
            event = {
                "event_id": f"{client.name}-{number}",
                "item_id": rng.choice(items),
                "event_type": "purchase",
                "timestamp": time.time_ns() // 1_000_000,
            }
            body = {"user_id": client.name, "events": [event]}
            added = await insist(http, client, "POST", "/v1/events", body)
            client.acknowledged.append(event["event_id"])
            client.version = max(client.version, added["state_version"])
            answer = await insist(
                http, client, "POST", "/v1/recommend", {"user_id": client.name, "n": 3}
            )
            client.stale += answer["state_version"] < client.version
            if number % 40 == 0:
                await insist(http, client, "DELETE", f"/v1/users/{client.name}")
                client.erased += client.acknowledged
                client.acknowledged = []
                await asyncio.sleep(0.002)  # events of the millisecond of an erasure belong to it
        kept = (
            await insist(http, client, "GET", f"/v1/users/{client.name}/export")
            if (client.acknowledged)
            else {"events": []}
        )
    found = [event["event_id"] for event in kept["events"]]
    assert sorted(found) == sorted(client.acknowledged)
    assert not {*found} & {*client.erased}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_answered_for_is_lost(fault: str, service: Service, tmp_path: Path) -> None:
    if fault == "haproxy" and not runtime.runs_haproxy():
        pytest.skip("HAProxy is not installed")
    clients = [Client(f"{fault}{number}") for number in range(NUM_CLIENTS)]

    async def under_load() -> None:
        until = time.monotonic() + LOAD_S
        lives = [
            asyncio.ensure_future(live(service.url, client, service.items, until))
            for client in clients
        ]
        await asyncio.sleep(FAULT_AT_S)
        await asyncio.to_thread(FAULTS[fault], service)
        await asyncio.gather(*lives)

    asyncio.run(under_load())
    tries = sum((client.tries for client in clients), Counter())
    acknowledged = sum(len(c.acknowledged) + len(c.erased) for c in clients)
    print(
        f"\n{fault}: {acknowledged} events acknowledged, none lost; tries {dict(tries)}; "
        f"longest wait {max(client.longest_s for client in clients):.2f} s"
    )
    assert sum(client.stale for client in clients) == 0
    assert acknowledged > 5 * NUM_CLIENTS
