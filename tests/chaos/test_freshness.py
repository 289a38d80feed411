"""Ten thousand times an event, then a question, over two replicas without affinity: none stale."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import httpx
import pytest

from raymeta import runtime
from raymeta.artifact import load_artifact
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.services import served

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_PAIRS = 10_000
NUM_CLIENTS = 40
NUM_USERS = 500


async def write_then_read(
    url: str, items: tuple[str, ...], client: int, users: list[str], seen: Counter[str]
) -> int:
    """A client's share; its users are its own, so that it knows how many events each has."""
    rng = random.Random(client)
    counts: Counter[str] = Counter()
    stale = 0
    # a new connection a request, so that the balancer chooses a replica each time
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=30.0, limits=limits) as http:
        for _ in range(NUM_PAIRS // NUM_CLIENTS):
            user = rng.choice(users)
            event = {"item_id": rng.choice(items), "event_type": "purchase"}
            counts[user] += 1
            added = await http.post("/v1/events", json={"user_id": user, "events": [event]})
            answer = await http.post("/v1/recommend", json={"user_id": user, "n": 1})
            version = added.json()["state_version"]
            found = answer.json()
            stale += found["state_version"] < version or found["n_support"] != counts[user]
            seen["pairs"] += 1
    return stale


def test_no_answer_is_stale(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path / "artifact")
    items = load_artifact(artifact).catalogue.item_ids
    seen: Counter[str] = Counter()

    async def all_clients(url: str) -> int:
        users = [
            [f"u{n}" for n in range(NUM_USERS) if n % NUM_CLIENTS == client]
            for client in range(NUM_CLIENTS)
        ]
        lives = [write_then_read(url, items, c, users[c], seen) for c in range(NUM_CLIENTS)]
        return sum(await asyncio.gather(*lives))

    store = {"kind": "sqlite", "path": str(tmp_path / "events.sqlite")}
    with runtime.session(num_cpus=2), served(artifact, store) as url:
        stale = asyncio.run(all_clients(url))
    print(f"\n{stale} of {seen['pairs']} answers were stale")
    assert seen["pairs"] == NUM_PAIRS
    assert stale == 0
