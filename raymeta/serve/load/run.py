"""Measures a running endpoint: a lone request, as many as it can take, and a given rate.

Phases of several targets are interleaved round by round, so that what else the machine does meets
them alike. Leaves how requests are sent to `client`, and what is printed to its caller.
"""

import asyncio
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from raymeta.errors import ResourceError
from raymeta.serve.load.client import Outcomes, closed_loop, open_loop
from raymeta.serve.load.traffic import Traffic, arrivals, http_requests

PATH = "/v1/recommend"
RESPONDER_S = 1.0


@dataclass(frozen=True)
class Target:
    """One endpoint.

    Attributes:
        name: in the results.
        url: its base, with a path where its routes have a prefix.
        headers: of every request, such as a key.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        rate: requests a second of the open loop; None takes `share` of what saturation gave.
        share: of the throughput at saturation.
        duration_s: of each phase of each round.
        rounds: how often the phases are repeated.
        concurrency: requests at a time, at saturation.
        burst: see `traffic.arrivals`.
        max_connections: of the open loop.
    """

    rate: float | None = None
    share: float = 0.7
    duration_s: float = 5.0
    rounds: int = 3
    concurrency: int = 16
    burst: float = 1.0
    max_connections: int = 512


Measured = dict[str, dict[str, Outcomes]]
"""Target -> phase (`lone`, `saturated`, `at_rate`) -> what became of its requests."""


def measure(
    targets: Sequence[Target],
    plan: Plan,
    traffic: Traffic,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Runs the plan against each target.

    All targets get the rate that the first of them is asked for.

    Raises:
        ResourceError: a target does not answer.
    """
    item_ids, event_type = discover(targets[0])
    measured: Measured = {target.name: {} for target in targets}
    sources = {target.name: _requests(target, traffic, item_ids, event_type) for target in targets}

    def note(target: Target, phase: str, outcomes: Outcomes) -> None:
        known = measured[target.name].setdefault(phase, Outcomes())
        known.latencies_s += outcomes.latencies_s
        known.statuses += outcomes.statuses
        known.wall_s += outcomes.wall_s
        known.cpu_s += outcomes.cpu_s

    for number in range(plan.rounds):
        for phase, concurrency in (("lone", 1), ("saturated", plan.concurrency)):
            for target in targets:
                progress(f"round {number + 1}/{plan.rounds}: {target.name}, {phase}")
                note(target, phase, _closed(target, sources[target.name], plan, concurrency))
    rate = plan.rate or plan.share * _throughput(measured[targets[0].name]["saturated"])
    for number in range(plan.rounds):
        for target in targets:
            progress(f"round {number + 1}/{plan.rounds}: {target.name}, {rate:.0f} a second")
            note(target, "at_rate", _open(target, sources[target.name], plan, rate, number))
    return measured


def generator_limit() -> float:
    """Requests a second that this generator can send and have answered, on this machine, by a
    responder that does next to nothing: what it asks of a server must lie well below."""
    with subprocess.Popen(
        [sys.executable, "-c", _RESPONDER], stdout=subprocess.PIPE, text=True
    ) as responder:
        assert responder.stdout is not None
        port = int(responder.stdout.readline())
        body = json.dumps({"user_id": "u", "n": 10, "events": []}).encode()
        requests = http_requests(_repeated(body), host="127.0.0.1", path=PATH, headers={})
        outcomes = _run(
            closed_loop("127.0.0.1", port, requests, concurrency=16, duration_s=RESPONDER_S)
        )
        responder.terminate()
    return _throughput(outcomes)


def discover(target: Target) -> tuple[list[str], str]:
    """Item ids that an endpoint recommends, and a type of event that it takes.

    Raises:
        ResourceError: it does not answer, or refuses.
    """
    answer = _ask(target, PATH, {"user_id": "load-discovery", "n": 100})
    models = _ask(target, "/v1/models", None)
    variants = models["variants"].values()
    types = next(variant["event_types"] for variant in variants if variant["is_default"])
    ids = [item["id"] for item in answer["items"]]
    return ids, "purchase" if "purchase" in types else types[0]


def _ask(target: Target, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{target.url.rstrip('/')}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **target.headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise ResourceError(
            f"{target.url} refused a request: {error.code} {error.read().decode()[:300]}",
            remedy="Give --key with the scopes read and write, if the service has keys.",
        ) from None
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"No service answers at {target.url}: {error}.",
            remedy="Start one with `raymeta serve`, and give its URL.",
        ) from None


def _requests(
    target: Target, traffic: Traffic, item_ids: Sequence[str], event_type: str
) -> Iterator[bytes]:
    parts = urlsplit(target.url)
    return http_requests(
        traffic.bodies(item_ids, event_type, run=uuid.uuid4().hex[:8]),
        host=parts.netloc,
        path=f"{parts.path.rstrip('/')}{PATH}",
        headers=dict(target.headers),
        affinity=traffic.affinity,
    )


def _closed(target: Target, requests: Iterator[bytes], plan: Plan, concurrency: int) -> Outcomes:
    host, port = _address(target)
    return _run(
        closed_loop(host, port, requests, concurrency=concurrency, duration_s=plan.duration_s)
    )


def _open(
    target: Target, requests: Iterator[bytes], plan: Plan, rate: float, seed: int
) -> Outcomes:
    host, port = _address(target)
    times = arrivals(rate, plan.duration_s, burst=plan.burst, seed=seed)
    return _run(open_loop(host, port, requests, times, max_connections=plan.max_connections))


def _address(target: Target) -> tuple[str, int]:
    parts = urlsplit(target.url)
    host = parts.hostname or "127.0.0.1"
    # once, so that no request waits for a name
    return socket.gethostbyname(host), parts.port or 80


def _run(work: Any) -> Outcomes:
    """On uvloop where it is installed: Serve brings it, and it halves what a request costs here."""
    try:
        import uvloop
    except ImportError:
        runner: Any = asyncio.run
    else:
        runner = uvloop.run
    outcomes: Outcomes = runner(work)
    return outcomes


def _throughput(outcomes: Outcomes) -> float:
    return sum(status == 200 for status in outcomes.statuses) / outcomes.wall_s


def _repeated(body: bytes) -> Iterator[bytes]:
    while True:
        yield body


_RESPONDER = """
import asyncio
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
class Responder(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(ANSWER)
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Responder, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
try:
    import uvloop
except ImportError:
    asyncio.run(main())
else:
    uvloop.run(main())
"""
