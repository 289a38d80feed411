"""Rows a second and peak memory of `prepare` on a generated log of many million events.

    python tests/benchmarks/prepare_memory.py --million-events 20
    python tests/benchmarks/prepare_memory.py --million-events 20 --ray

The log is written to Parquet first and then prepared by a process of its own. Memory is the sum of
the proportional set sizes (PSS) of that process and of everything it starts, the object store
included, sampled ten times a second: a page that several processes share counts once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from raymeta.data.synthetic_shop import Shop, write_events

MARK = "RAYMETA_BENCHMARK"
SAMPLE_S = 0.1
EVENTS_PER_VISIT = 13.42

PREPARE = """
import sys
from raymeta.data.prepare import prepare, run_in_process
from raymeta.data.schema import EventColumns, EventSchema, LogSchema
from raymeta.data.sources.files import Files
import contextlib
runner, session = run_in_process, contextlib.nullcontext()
if sys.argv[3] == "ray":
    from raymeta import runtime
    from raymeta.data.pipeline import RayRunner
    runner, session = RayRunner(), runtime.session()
names = ("value", "query", "ranking_id", "position", "propensity", "visit_id")
schema = LogSchema(events=EventSchema(columns=EventColumns(**{n: n for n in names})))
with session:
    prepare(Files([sys.argv[1]], schema=schema), sys.argv[2], runner=runner)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million-events", type=float, default=20.0)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--dir", type=Path, default=None, help="where to write (a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        print(json.dumps(measure(Path(folder), given.million_events, on_ray=given.ray)))


def measure(folder: Path, million_events: float, *, on_ray: bool) -> dict[str, float]:
    visits = round(million_events * 1e6 / EVENTS_PER_VISIT)
    shop = Shop(num_users=visits // 10, num_items=50_000, num_visits=visits)
    log = folder / "events.parquet"
    started_s = time.monotonic()
    num_events = write_events(shop, log)
    written_s = time.monotonic() - started_s
    token = str(os.getpid())
    arguments = [str(log), str(folder / "data"), "ray" if on_ray else "here"]
    started_s = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", PREPARE, *arguments], env={**os.environ, MARK: token}
    )
    peak_bytes = 0
    while child.poll() is None:
        peak_bytes = max(peak_bytes, summed_pss_bytes(token))
        time.sleep(SAMPLE_S)
    elapsed_s = time.monotonic() - started_s
    if child.returncode != 0:
        raise SystemExit(f"prepare ended with exit code {child.returncode}")
    return {
        "events": num_events,
        "log_bytes": log.stat().st_size,
        "written_rows_per_s": round(num_events / written_s),
        "prepared_s": round(elapsed_s, 1),
        "prepared_rows_per_s": round(num_events / elapsed_s),
        "peak_pss_gb": round(peak_bytes / 1e9, 3),
    }


def summed_pss_bytes(token: str) -> int:
    """PSS of every process that carries the mark in its environment."""
    mark = f"{MARK}={token}".encode()
    total = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if mark not in (process / "environ").read_bytes().split(b"\0"):
                continue
            text = (process / "smaps_rollup").read_text()
        except OSError:  # it ended meanwhile
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    main()
