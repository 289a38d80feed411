"""One contender in a process of its own: JSON lines in, JSON lines out.

    {"do": "prepare", "work": W, "dtype": D, "users": N}  builds the work (N: all, or fewer)
    {"do": "gradient", "path": P}                         writes the meta-gradient to P (.npz)
    {"do": "time", "seconds": S}                          CPU seconds of each step for about S
    {"do": "memory"}                                      peak resident bytes of steps, less before

CPU time is the whole process's, so what a framework does on other threads counts too.
"""

import ctypes
import importlib
import json
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import works


def main() -> None:
    contender, threads = sys.argv[1], int(sys.argv[2])
    if threads < (os.cpu_count() or 1):
        os.sched_setaffinity(0, range(threads))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    warnings.simplefilter("ignore")
    step = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            module = importlib.import_module(f"contenders.{contender}")
            limit_threads(threads)
            if asked["do"] == "prepare":
                work = works.WORKS[asked["work"]]
                batch = works.tasks(work, asked["dtype"], users=asked.get("users"))
                step = module.prepare(work, works.start(work, asked["dtype"]), batch)
                started_s = time.perf_counter()
                step()
                answer = {"first_s": time.perf_counter() - started_s}
            elif asked["do"] == "gradient":
                np.savez(asked["path"], **{n: np.asarray(g) for n, g in step().items()})
                answer = {}
            elif asked["do"] == "time":
                answer = {"cpu_s": timed(step, asked["seconds"])}
            else:
                answer = {"extra_bytes": extra_bytes(step)}
        except Exception as error:  # the runner decides; other works may still do
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def limit_threads(threads: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def timed(step, seconds: float) -> list[float]:
    found, end_s = [], time.perf_counter() + seconds
    while not found or time.perf_counter() < end_s:
        started_s = time.process_time()
        step()
        found.append(time.process_time() - started_s)
    return found


def extra_bytes(step) -> int:
    """Peak resident bytes while stepping, less what is resident between steps."""
    step()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps of earlier steps is not resident
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    for _ in range(2):
        step()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


if __name__ == "__main__":
    main()
