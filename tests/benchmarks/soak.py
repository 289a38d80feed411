"""A service under half load for half an hour: does anything grow that should not?

    python tests/benchmarks/soak.py ARTIFACT --minutes 30 --replicas 2

Serves the artifact from a SQLite file, finds what the service can take, then sends half of that,
each request with a fresh event, and looks at the replicas every ten seconds: resident memory, open
files, threads. Caches are made small, so that they are full early; the slope is that of the second
half, by least squares. Prints one JSON object.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from raymeta import runtime
from raymeta.config.serving import ServingConfig
from raymeta.serve import local
from raymeta.serve.load.client import Outcomes, closed_loop, open_loop
from raymeta.serve.load.report import summary
from raymeta.serve.load.run import PATH, Target, _run, discover
from raymeta.serve.load.traffic import Traffic, arrivals, http_requests

SAMPLE_S = 10.0
PHASE_S = 60.0
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="a free one if not given")
    parser.add_argument("--rate", type=float, help="requests a second; half of saturation")
    options = parser.parse_args()
    port = options.port or runtime.free_port()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "events.sqlite"
        with (
            runtime.session(num_cpus=2),
            local.serving(_config(options, store), host="127.0.0.1", port=port) as url,
        ):
            print(json.dumps(soak(url, store, minutes=options.minutes, rate=options.rate)))


def _config(options: argparse.Namespace, store: Path) -> ServingConfig:
    return ServingConfig.parse(
        {
            "tenants": {"default": {"variants": {"default": str(options.artifact.absolute())}}},
            "store": {"kind": "sqlite", "path": str(store)},
            "state_cache_bytes": 8 << 20,
            "replicas": {"num_replicas": options.replicas, "num_cpus": 0.25},
        },
        source="soak",
    )


@dataclass
class Watch:
    """Looks at the replicas until it is stopped; one row a look."""

    replicas: list[psutil.Process]
    rows: list[tuple[float, int, int, int]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        started = time.monotonic()
        while not self.stopped.wait(SAMPLE_S):
            self.rows.append(
                (
                    time.monotonic() - started,
                    sum(p.memory_info().rss for p in self.replicas),
                    sum(p.num_fds() for p in self.replicas),
                    sum(p.num_threads() for p in self.replicas),
                )
            )

    def facts(self) -> dict[str, Any]:
        time_s, rss, files, threads = np.array(self.rows, float).T
        late = time_s >= time_s[-1] / 2
        slope = np.polyfit(time_s[late], rss[late], 1)[0]
        return {
            "rss_mib": {"first": round(rss[0] / MIB, 1), "last": round(rss[-1] / MIB, 1)},
            "rss_slope_mib_per_hour": round(float(slope) * 3600.0 / MIB, 2),
            "open_files": {"first": int(files[0]), "last": int(files[-1]), "max": int(files.max())},
            "threads": {"first": int(threads[0]), "last": int(threads[-1])},
        }


def soak(url: str, store: Path, *, minutes: float, rate: float | None) -> dict[str, Any]:
    """Finds the rate, holds it, and says what was seen."""
    target = Target("service", url)
    item_ids, event_type = discover(target)
    host, port = "127.0.0.1", int(url.rsplit(":", 1)[1])
    # flatter than a day's visitors: no user may grow to thousands of events in half an hour
    bodies = Traffic(zipf=0.5).bodies(item_ids, event_type, run="soak")
    requests = http_requests(bodies, host=host, path=PATH, headers={})
    saturation = _saturation(host, port, requests)
    rate = rate or 0.5 * saturation
    replicas = [
        process
        for process in psutil.Process().children(recursive=True)
        if "Recommender" in " ".join(process.cmdline())
    ]
    watch = Watch(replicas)
    watching = threading.Thread(target=watch.run)
    watching.start()
    total = Outcomes()
    try:
        for phase in range(round(minutes * 60.0 / PHASE_S)):
            times = arrivals(rate, PHASE_S, seed=phase)
            found = _run(open_loop(host, port, requests, times))
            total.latencies_s += found.latencies_s
            total.statuses += found.statuses
            total.wall_s += found.wall_s
            total.cpu_s += found.cpu_s
    finally:
        watch.stopped.set()
        watching.join()
    return {
        "rate_per_s": round(rate, 1),
        "saturation_per_s": round(saturation, 1),
        "minutes": minutes,
        "load": summary(total),
        "replicas": len(replicas),
        **watch.facts(),
        "store": _store_facts(store),
    }


def _saturation(host: str, port: int, requests: Iterator[bytes]) -> float:
    found = _run(closed_loop(host, port, requests, concurrency=16, duration_s=10.0))
    return len(found.statuses) / found.wall_s


def _store_facts(store: Path) -> dict[str, Any]:
    import sqlite3

    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        (users,) = connection.execute("SELECT count(*) FROM users").fetchone()
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    finally:
        connection.close()
    size = sum(p.stat().st_size for p in store.parent.glob(f"{store.name}*"))
    return {
        "users": users,
        "events": events,
        "mib": round(size / MIB, 1),
        "bytes_per_user": round(size / users),
        "bytes_per_event": round(size / events),
    }


if __name__ == "__main__":
    main()
