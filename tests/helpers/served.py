"""A service of two replicas on a real Ray cluster, as a test sees it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from raymeta import runtime
from raymeta.config.serving import ServingConfig
from raymeta.serve import local


@dataclass
class Served:
    client: httpx.Client
    cluster: runtime.Cluster
    artifact: Path
    config: ServingConfig
    port: int

    def replicas(self) -> list[dict[str, Any]]:
        application = local._details(self.cluster)["applications"][local.APPLICATION_NAME]
        # there are none while the application is being built
        return application["deployments"].get("Recommender", {}).get("replicas", [])

    def replica_pids(self) -> set[int]:
        return {r["pid"] for r in self.replicas() if r["state"] == "RUNNING"}

    def wait_until_settled(self) -> None:
        """Until two replicas run and none comes or goes: what a client sees of that is not what a
        test asks about."""
        deadline = time.monotonic() + 90
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 2.0:  # HAProxy hears of a change a moment later
            application = local._details(self.cluster)["applications"][local.APPLICATION_NAME]
            states = [replica["state"] for replica in self.replicas()]
            if application["status"] != "RUNNING" or states != ["RUNNING"] * 2:
                quiet_since = time.monotonic()
            assert time.monotonic() < deadline, f"{application['status']}: {states}"
            time.sleep(0.2)

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
