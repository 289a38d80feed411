"""Resident memory of one process over outer steps: it must not grow.

    python tests/benchmarks/memory_over_steps.py

Prints one JSON line an algorithm: resident megabytes after `--early` and after `--steps` outer
steps, and by how many percent they differ (the limit is 2).
"""

import argparse
import json
import os
import subprocess
import sys

import psutil
import torch
from torch import nn

from raymeta.algorithms import presets
from raymeta.algorithms.outer import meta_train
from raymeta.data.worlds.base import batches
from raymeta.data.worlds.sinusoids import Sinusoids
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel

LEARNERS = {
    "maml": lambda model: presets.maml(model, inner_lr=0.01, num_inner_steps=3),
    "anil": lambda model: presets.anil(model, inner_lr=0.01, num_inner_steps=3),
    "imaml": lambda model: presets.imaml(model, inner_lr=0.01, num_inner_steps=3),
    "ridge": lambda model: presets.ridge(model),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--algorithm", choices=sorted(LEARNERS), help="all, a process each, if not given"
    )
    parser.add_argument("--early", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    if arguments.algorithm is None:
        for name in LEARNERS:
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--algorithm", name], check=True
            )
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    learner = LEARNERS[arguments.algorithm](ModuleModel(net, squared_error))
    resident: dict[int, float] = {}
    process = psutil.Process(os.getpid())

    def measure(step: int, _loss: float) -> None:
        if step + 1 in (arguments.early, arguments.steps):
            resident[step + 1] = process.memory_info().rss / 2**20

    source = batches(Sinusoids(), tasks_per_batch=25, seed=0)
    meta_train(learner, source, num_steps=arguments.steps, report=measure)
    early, late = resident[arguments.early], resident[arguments.steps]
    result = {
        "algorithm": arguments.algorithm,
        f"resident_mb_at_{arguments.early}": round(early, 1),
        f"resident_mb_at_{arguments.steps}": round(late, 1),
        "growth_percent": round(100 * (late / early - 1), 2),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
