"""Users a second of every contender on every work, in one interleaved run.

    python tests/benchmarks/core/run.py                     all works, all contenders
    python tests/benchmarks/core/run.py --works mel_dense_256 --contenders raymeta learn2learn

First the numbers: in float64 every contender must give the meta-gradient of the plain loop to 1e-6
of its largest entry, or its row says so instead of a speed. Then the speed in float32: rounds in
which each contender in turn steps for a while, so that a slow spell of the machine meets all; the
figure is the median over rounds of CPU seconds a step, with the quartiles. Then memory: peak
resident bytes during a step, less what is resident between steps.

A line a work and contender is appended to `results.jsonl`; `table.py` prints the tables from it.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import environments
import numpy as np
from table import print_tables
from works import WORKS

HERE = Path(__file__).parent
CONTENDERS = (
    "learn2learn",
    "higher",
    "torchopt",
    "parallel_metalearn",
    "plain",
    "raymeta",
    "raymeta_traced",
    "jax_jit",
)
TOLERANCE = 1e-6


class Contender:
    """A worker process and what it answered last."""

    def __init__(self, name: str, python: Path, threads: int) -> None:
        self.name = name
        environment = {
            **os.environ,
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[2]}",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false" if threads == 1 else "",
        }
        self._process = subprocess.Popen(
            [str(python), str(HERE / "worker.py"), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def ask(self, do: str, **given: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"the process ended ({self._process.wait()})"}
        return json.loads(line)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a contender in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--environments", type=Path, default=Path(".bench"), help="where they are kept or made"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    given = parser.parse_args()
    stamp = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "threads": given.threads,
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "peak_gflops": round(peak_flops(given.threads) / 1e9, 1),
    }
    pythons = {}
    for name in given.contenders:
        try:
            pythons[name] = environments.python_of(name, given.environments)
        except subprocess.CalledProcessError as error:
            print(f"{name}: cannot be installed here: {error.stderr}", file=sys.stderr)
    lines = []
    for work in given.works:
        lines += [{**stamp, **line} for line in measured(work, pythons, given)]
        with given.results.open("a") as results:
            for line in lines[-len(pythons) :]:
                results.write(json.dumps(line) + "\n")
    print_tables(lines)


def measured(work: str, pythons: dict[str, Path], given: argparse.Namespace) -> list[dict]:
    """One line a contender: numbers checked, then CPU seconds a step, then memory."""
    lines, running, reference = {}, {}, None
    names = sorted(pythons, key=lambda name: name != "plain")  # the reference first
    for name in names:
        print(f"{work}: {name}", file=sys.stderr, flush=True)
        contender = Contender(name, pythons[name], given.threads)
        line = {"work": work, "contender": name, "users": WORKS[work].users}
        lines[name] = line
        error, reference = checked(contender, work, reference)
        answer = {"error": error} if error else contender.ask("prepare", work=work, dtype="float32")
        if "error" in answer:
            line["error"] = answer["error"]
            print(f"  {answer['error']}", file=sys.stderr)
            contender.close()
        else:
            line["first_s"] = round(answer["first_s"], 3)
            running[name] = contender
    rounds: dict[str, list[float]] = {name: [] for name in running}
    for name in running:
        running[name].ask("time", seconds=given.seconds)  # warm
    for _ in range(given.rounds):
        for name, contender in running.items():
            times = contender.ask("time", seconds=given.seconds)["cpu_s"]
            rounds[name].append(statistics.median(times))
    flops = WORK_FLOPS.get(work) or standard_flops(work)
    for name, contender in running.items():
        quartiles = np.quantile(rounds[name], [0.25, 0.5, 0.75])
        lines[name] |= {
            "step_s": [float(f"{q:.4g}") for q in quartiles],
            "users_per_s": round(WORKS[work].users / quartiles[1], 1),
            "standard_gflops": round(flops / quartiles[1] / 1e9, 2),
            **contender.ask("memory"),
        }
        contender.close()
    return list(lines.values())


WORK_FLOPS: dict[str, float] = {}


def checked(
    contender: Contender, work: str, reference: dict[str, np.ndarray] | None
) -> tuple[str | None, dict[str, np.ndarray] | None]:
    """What is wrong with the float64 meta-gradient, and the reference (the first one's)."""
    answer = contender.ask("prepare", work=work, dtype="float64")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gradient.npz"
        answer |= contender.ask("gradient", path=str(path)) if "error" not in answer else {}
        if "error" in answer:
            return answer["error"], reference
        with np.load(path) as file:
            found = dict(file)
    if reference is None:
        return None, found
    if found.keys() != reference.keys():
        return f"gradients of other names: {sorted(found.keys() ^ reference.keys())}", reference
    largest = max(float(abs(value).max()) for value in reference.values())
    worst = max(float(abs(found[n] - value).max()) for n, value in reference.items()) / largest
    return (None if worst < TOLERANCE else f"other numbers: off by {worst:.1e}"), reference


def standard_flops(work: str) -> float:
    """Floating-point operations of the matrix products of the plain loop's step."""
    import torch
    from contenders import plain
    from torch.utils.flop_counter import FlopCounterMode
    from works import start, tasks

    few = 2  # every user costs the same
    step = plain.prepare(
        WORKS[work], start(WORKS[work], "float32"), tasks(WORKS[work], "float32", users=few)
    )
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        step()
    return counter.get_total_flops() / few * WORKS[work].users


def peak_flops(threads: int) -> float:
    """The best of several float32 products of two 1024 x 1024 matrices."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(20):
        started_s = time.perf_counter()
        a @ b
        best = max(best, 2 * 1024**3 / (time.perf_counter() - started_s))
    return best


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
