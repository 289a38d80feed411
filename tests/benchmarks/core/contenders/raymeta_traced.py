"""raymeta, run from a record of its operations (`raymeta.algorithms.traced`)."""

from collections.abc import Callable

from contenders.raymeta import learner_and_batch
from torch import Tensor
from works import Arrays, Work

from raymeta.algorithms.traced import Traced


def prepare(
    work: Work, values: Arrays, batch: Arrays, *, compiled: bool = False
) -> Callable[[], dict[str, Tensor]]:
    algorithm, params, tasks = learner_and_batch(work, values, batch)
    traced = Traced(algorithm, compile=compiled)

    def step() -> dict[str, Tensor]:
        found = traced.meta_gradient(params, tasks).gradients
        return {name: g / tasks.num_tasks for name, g in found.items()}

    return step
