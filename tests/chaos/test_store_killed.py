"""The store's server killed under load and started again: real Redis and PostgreSQL servers.

Meanwhile writes are refused, not acknowledged, and reads are answered for anybody. What is counted
is printed (`pytest -s`).
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymeta import runtime
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.servers import Server, Servers
from tests.helpers.services import served, through

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DOWN_S = 2.0


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[runtime.Cluster]:
    with runtime.session(num_cpus=2) as started:
        yield started


def server_and_settings(kind: str, servers: Servers) -> tuple[Server, dict[str, Any]]:
    if kind == "redis":
        redis = servers.redis()
        return redis, {"kind": "redis", "url": redis.url(), "prefix": "chaos"}
    postgres = servers.postgres()
    return postgres, {"kind": "postgres", "url": postgres.url(), "db_schema": "chaos"}


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_store_killed_and_back_loses_nothing(kind: str, servers: Servers, tmp_path: Path) -> None:
    server, settings = server_and_settings(kind, servers)

    def down() -> None:
        server.kill()
        time.sleep(DOWN_S)
        server.start()

    artifact = tiny_artifact(tmp_path / "artifact")
    with served(artifact, settings) as url:
        shoppers = through(url, artifact, f"{kind} killed", down)
    assert sum(shopper.tries["503"] for shopper in shoppers) > 0
