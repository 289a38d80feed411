"""Clients of a running service who know what was answered for, and check it at the end."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

GIVE_UP_S = 60.0


@dataclass
class Shopper:
    """One user.

    Attributes:
        acknowledged: ids of events that were answered for, since the last erasure.
        erased: ids of events of before it.
        version: the highest that was answered.
        stale: answers of before an acknowledged event.
        degraded: answers for anybody, which say that the store did not answer.
        tries: answers by status, and failures by name.
        longest_s: the longest wait for a good answer, tries among it.
    """

    name: str
    acknowledged: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    version: int = 0
    stale: int = 0
    degraded: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0


async def insist(
    http: httpx.AsyncClient, shopper: Shopper, method: str, path: str, body: Any = None
) -> dict[str, Any]:
    """Sends a request until it is answered well."""
    started = time.monotonic()
    while True:
        try:
            response = await http.request(method, path, json=body)
            shopper.tries[str(response.status_code)] += 1
            if response.status_code == 200:
                shopper.longest_s = max(shopper.longest_s, time.monotonic() - started)
                answer: dict[str, Any] = response.json()
                return answer
        except httpx.HTTPError as error:
            shopper.tries[type(error).__name__] += 1
        assert time.monotonic() - started < GIVE_UP_S, f"{method} {path} was never answered"
        await asyncio.sleep(0.05)


async def shop(url: str, shopper: Shopper, items: Sequence[str], until: float) -> None:
    """Buys and asks until a time, is erased now and then, and checks what is left."""
    rng = random.Random(shopper.name)
    number = 0
    async with httpx.AsyncClient(base_url=url, timeout=5.0) as http:
        while time.monotonic() < until:
            number += 1
            event = {
                "event_id": f"{shopper.name}-{number}",
                "item_id": rng.choice(items),
                "event_type": "purchase",
                "timestamp": time.time_ns() // 1_000_000,
            }
            await _buy(http, shopper, event, in_one=number % 2 == 0)
            answer = await insist(
                http, shopper, "POST", "/v1/recommend", {"user_id": shopper.name, "n": 3}
            )
            if answer["fallback"] == "store":
                shopper.degraded += 1
            else:
                shopper.stale += answer["state_version"] < shopper.version
            if number % 40 == 0:
                await insist(http, shopper, "DELETE", f"/v1/users/{shopper.name}")
                shopper.erased += shopper.acknowledged
                shopper.acknowledged = []
                await asyncio.sleep(0.002)  # events of the millisecond of an erasure belong to it
        found = []
        if shopper.acknowledged:
            path = f"/v1/users/{shopper.name}/export"
            kept = await insist(http, shopper, "GET", path)
            found = [event["event_id"] for event in kept["events"]]
    assert sorted(found) == sorted(shopper.acknowledged)
    assert not {*found} & {*shopper.erased}


async def _buy(
    http: httpx.AsyncClient, shopper: Shopper, event: dict[str, Any], *, in_one: bool
) -> None:
    """An event by itself, or with the question for recommendations."""
    body = {"user_id": shopper.name, "events": [event]}
    path = "/v1/recommend" if in_one else "/v1/events"
    added = await insist(http, shopper, "POST", path, body)
    shopper.acknowledged.append(event["event_id"])
    shopper.version = max(shopper.version, added["state_version"])


async def shop_through(
    url: str,
    shoppers: Sequence[Shopper],
    items: Sequence[str],
    fault: Callable[[], None],
    *,
    load_s: float,
    fault_at_s: float,
) -> None:
    """All of them at once, and the fault meanwhile, in a thread of its own."""
    until = time.monotonic() + load_s
    lives = [asyncio.ensure_future(shop(url, shopper, items, until)) for shopper in shoppers]
    await asyncio.sleep(fault_at_s)
    await asyncio.to_thread(fault)
    await asyncio.gather(*lives)


def told(title: str, shoppers: Sequence[Shopper]) -> str:
    """What became of them, in a line."""
    tries = sum((shopper.tries for shopper in shoppers), Counter())
    failed = sum(count for name, count in tries.items() if name != "200")
    return (
        f"{title}: {num_acknowledged(shoppers)} events acknowledged, none lost; "
        f"{failed} of {sum(tries.values())} requests failed {dict(tries)}; "
        f"{sum(shopper.degraded for shopper in shoppers)} answers for anybody; "
        f"longest wait {max(shopper.longest_s for shopper in shoppers):.2f} s"
    )


def num_acknowledged(shoppers: Sequence[Shopper]) -> int:
    return sum(len(shopper.acknowledged) + len(shopper.erased) for shopper in shoppers)
