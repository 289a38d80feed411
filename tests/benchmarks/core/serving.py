"""CPU milliseconds to adapt one user, alone and in a batch of 64: `mel_dense` of `works`.

    python tests/benchmarks/core/serving.py [--environments .bench]

`learn2learn` clones and adapts; `copied` is a deep copy and a few steps of torch.optim.SGD (MeLU's
way); `raymeta` is `adapt` as it is, `raymeta_traced` from a record of its operations. All give the
same adapted weights, which is checked first in float64. One process, turns interleaved, medians and
quartiles, one thread.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import environments
import networks
import torch
from contenders.raymeta import learner_and_batch
from torch import Tensor
from works import WORKS, start, tasks

from raymeta.algorithms.traced import Traced
from raymeta.types import Examples

WORK = WORKS["mel_dense_256"]
USERS, ROUNDS, SECONDS = 64, 15, 0.3
Weights = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments", type=Path, default=Path(".bench"))
    given = parser.parse_args()
    environments.python_of("learn2learn", given.environments)
    sys.path.append(str(given.environments / "learn2learn" / environments.SITE))
    torch.set_num_threads(1)
    check()
    ways = contenders("float32")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):  # the first round warms
        for name, (adapt, users) in ways.items():
            times[name].append(timed(adapt) / users)
    base = statistics.median(times["learn2learn, one user"][1:])
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found[1:], n=4)
        spread = [round(1e3 * t, 4) for t in (low, middle, high)]
        print(json.dumps({"way": name, "ms_a_user": spread, "ratio": round(base / middle, 2)}))


def contenders(dtype: str) -> dict[str, tuple[Callable[[], Weights], int]]:
    """Name -> (adapts, for how many users)."""
    from learn2learn.algorithms.maml import MAML

    values, rows = start(WORK, dtype), tasks(WORK, dtype, users=USERS)
    net = networks.network(WORK, values)
    bound = networks.Bound(net)
    maml = MAML(bound, lr=WORK.inner_lr, first_order=True)
    x, y = (torch.from_numpy(rows[name][0]) for name in ("support_x", "support_y"))

    def by_learn2learn() -> Weights:
        learner = maml.clone()
        features = bound.features(x).detach()
        for _ in range(WORK.steps):
            learner.adapt(networks.loss(WORK, learner(features), y))
        return {n.removeprefix("module."): p for n, p in learner.named_parameters()}

    def by_copy() -> Weights:
        mine = copy.deepcopy(bound)
        optimizer = torch.optim.SGD(mine.parameters(), lr=WORK.inner_lr)
        features = bound.features(x).detach()
        for _ in range(WORK.steps):
            optimizer.zero_grad()
            networks.loss(WORK, mine(features), y).backward()
            optimizer.step()
        return dict(mine.named_parameters())

    algorithm, params, batch = learner_and_batch(WORK, values, rows)
    traced = Traced(algorithm)
    one: Examples = {name: value[:1] for name, value in batch.support.items()}
    return {
        "learn2learn, one user": (by_learn2learn, 1),
        "copied, one user": (by_copy, 1),
        "raymeta, one user": (lambda: algorithm.adapt(params, one), 1),
        "raymeta_traced, one user": (lambda: traced.adapt(params, one), 1),
        "raymeta, 64 users": (lambda: algorithm.adapt(params, batch.support), USERS),
        "raymeta_traced, 64 users": (lambda: traced.adapt(params, batch.support), USERS),
    }


def check() -> None:
    """The first user's weights are the same whoever adapts them."""
    found = {name: adapt() for name, (adapt, _) in contenders("float64").items()}
    expected = found["learn2learn, one user"]
    for name, weights in found.items():
        for key, value in expected.items():
            mine = weights[key] if weights[key].dim() == value.dim() else weights[key][0]
            error = float((mine - value).detach().abs().max())
            if error > 1e-9:
                raise SystemExit(f"{name}: {key} is off by {error:.1e}")


def timed(adapt: Callable[[], Weights]) -> float:
    times, end_s = [], time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end_s:
        started_s = time.process_time()
        adapt()
        times.append(time.process_time() - started_s)
    return statistics.median(times)


if __name__ == "__main__":
    main()
