"""What a task source is: a function of how many tasks and a generator; and endless batches of it.

Tasks are in the form of a plain module: `x` `[T, S, ...]`, `y`, and `mask` `[T, S]`.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from raymeta.seeding import torch_generator
from raymeta.types import Examples, TaskBatch


class TaskSource(Protocol):
    """Draws tasks."""

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        """`num_tasks` new tasks, independent of one another."""
        ...


def batches(source: TaskSource, *, tasks_per_batch: int, seed: int) -> Iterator[TaskBatch]:
    """Batches without end; the n-th depends on `seed` and n only."""
    step = 0
    while True:
        yield source.sample(tasks_per_batch, torch_generator(seed, "tasks", step))
        step += 1


def rows(x: Tensor, y: Tensor) -> Examples:
    """Examples in which every row counts, from `[T, S, ...]` each."""
    return {"x": x, "y": y, "mask": torch.ones(x.shape[:2], dtype=torch.bool)}


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform draws, float32."""
    return low + (high - low) * torch.rand(shape, generator=generator)
