"""Regression of sine waves: the classic first test of a meta-learner.

Two families, each as its paper has it:

    MAML (Finn et al. 2017, section 5.1): amplitude U[0.1, 5], phase U[0, pi], frequency 1
    Meta-SGD (Li et al. 2017, section 4.1): the same with a frequency U[0.8, 1.2]

Inputs are U[-5, 5].
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from raymeta.data.worlds.base import rows, uniform
from raymeta.types import TaskBatch


@dataclass(frozen=True)
class Sinusoids:
    """Tasks y = amplitude * sin(frequency * x - phase).

    Args:
        support_size: points to adapt on.
        query_size: points to be judged on.
        min_frequency, max_frequency: bounds of the frequency; both 1 in the MAML family.
    """

    support_size: int = 10
    query_size: int = 10
    min_frequency: float = 1.0
    max_frequency: float = 1.0

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        """Tasks with `x` and `y` of shape `[T, S, 1]`."""
        one = (num_tasks, 1, 1)
        amplitude = uniform(0.1, 5.0, one, generator)
        phase = uniform(0.0, pi, one, generator)
        frequency = uniform(self.min_frequency, self.max_frequency, one, generator)

        def points(number: int) -> tuple[Tensor, Tensor]:
            x = uniform(-5.0, 5.0, (num_tasks, number, 1), generator)
            return x, amplitude * torch.sin(frequency * x - phase)

        return TaskBatch(rows(*points(self.support_size)), rows(*points(self.query_size)))
