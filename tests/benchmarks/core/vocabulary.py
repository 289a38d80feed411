"""The cost of an outer step beside the number of rows of a table, with the same batch.

    python tests/benchmarks/core/vocabulary.py [--rows 10000 100000 1000000 10000000]

The work is `mel_full_32` or `mel_dense_32` of `works` with a larger table of width 16; the outer
step is the meta-gradient and the optimiser's step. `touched` takes the gradient on the touched rows
(`raymeta.algorithms.rows`) and moves the table by SparseAdam and the rest by Adam; `dense` takes a
gradient of all rows and moves everything by Adam. Sizes are visited in turn, round after round; the
figure is the median of CPU milliseconds. One thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from contenders.raymeta import squared_error
from networks import Net, Regression
from torch import nn

from raymeta.algorithms.presets import maml
from raymeta.algorithms.rows import TouchedRows
from raymeta.models.module import ModuleModel
from raymeta.types import Examples, TaskBatch

USERS, ROWS_A_TASK, FEATURES, WIDTH, HIDDEN, STEPS = 32, 10, 8, 16, 64, 5
ROUNDS = 15
TABLE = "slow.0.weight"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [10_000, 100_000, 1_000_000, 10_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes)
    parser.add_argument("--dense-up-to", type=int, default=1_000_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for fast in ("dense layers", "everything"):
        steps = {("touched", rows): outer_step(rows, fast, touched=True) for rows in given.rows}
        few = [rows for rows in given.rows if rows <= given.dense_up_to]
        steps |= {("dense", rows): outer_step(rows, fast, touched=False) for rows in few}
        for (way, rows), times in timed(steps).items():
            quartiles = [round(1e3 * t, 2) for t in statistics.quantiles(times, n=4)]
            print(json.dumps({"fast": fast, "way": way, "rows": rows, "step_ms": quartiles}))


def outer_step(rows: int, fast: str, *, touched: bool) -> Callable[[], None]:
    """One outer step on a batch that names the same number of rows whatever `rows` is."""
    torch.manual_seed(0)
    hidden = nn.Sequential(
        nn.Flatten(-2), nn.Linear(FEATURES * WIDTH, HIDDEN), nn.ReLU(), Regression(HIDDEN)
    )
    net = Net(nn.Sequential(nn.Embedding(rows, WIDTH)), hidden)
    names = ["*"] if fast == "everything" else ["fast.*"]
    model = ModuleModel(net, squared_error, adaptable=names)
    learner = maml(model, inner_lr=0.05, num_inner_steps=STEPS)
    algorithm = TouchedRows(learner, {TABLE: ["x"]}) if touched else learner
    params = learner.init(torch.Generator())
    table = [params[TABLE]]
    others = [value for name, value in params.items() if name != TABLE]
    if touched:
        optimizers = [torch.optim.SparseAdam(table), torch.optim.Adam(others, fused=True)]
    else:
        optimizers = [torch.optim.Adam([*table, *others], fused=True)]
    generator = torch.Generator().manual_seed(1)
    tasks = TaskBatch(part(rows, generator), part(rows, generator))

    def step() -> None:
        found = algorithm.meta_gradient(params, tasks).gradients
        for name, value in params.items():
            value.grad = found[name]
        for optimizer in optimizers:
            optimizer.step()

    return step


def part(rows: int, generator: torch.Generator) -> Examples:
    shape = (USERS, ROWS_A_TASK, FEATURES)
    y = torch.randn(shape[:2], generator=generator)
    x = torch.randint(0, rows, shape, generator=generator)
    return {"x": x, "y": y, "mask": torch.ones(shape[:2], dtype=torch.bool)}


def timed(steps: dict[tuple[str, int], Callable[[], None]]) -> dict[tuple[str, int], list[float]]:
    times: dict[tuple[str, int], list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(2):
            step()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            step()  # the caches are another size's
            started_s = time.process_time()
            step()
            times[name].append(time.process_time() - started_s)
    return times


if __name__ == "__main__":
    main()
