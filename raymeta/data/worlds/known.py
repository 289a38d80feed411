"""Worlds that a test can be sure of: what adapting gains in them is known beforehand.

TwoTribes       tasks differ by a sign only: nothing beats chance before adapting, all can after
Null            labels are independent of everything: any gain is a leak
LinearGaussian  each task is a vector: the best adapted predictor is a posterior mean
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from raymeta.data.worlds.base import rows
from raymeta.types import Examples, TaskBatch


@dataclass(frozen=True)
class TwoTribes:
    """y = s * <direction, x> with a sign s a task and |direction| = 1, x standard normal.

    The best unadapted squared error is 1 (predict 0); one row tells the tribe.

    Args:
        width: of x.
        support_size: rows to adapt on.
        query_size: rows to be judged on.
        classify: y is the class 0 or 1, by the sign of the above; unadapted, half are wrong.
    """

    width: int = 4
    support_size: int = 5
    query_size: int = 10
    classify: bool = False

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        sign = torch.randint(0, 2, (num_tasks, 1, 1), generator=generator) * 2.0 - 1.0
        direction = torch.ones(self.width) / self.width**0.5

        def draw(number: int) -> Examples:
            x = torch.randn(num_tasks, number, self.width, generator=generator)
            return rows(x, _labels(sign * (x @ direction)[..., None], self.classify))

        return TaskBatch(draw(self.support_size), draw(self.query_size))


@dataclass(frozen=True)
class Null:
    """x and y independent standard normals: the best squared error is 1, adapted or not.

    With `classify`, y is an independent coin: half are wrong, adapted or not.
    """

    width: int = 4
    support_size: int = 5
    query_size: int = 10
    classify: bool = False

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        def draw(number: int) -> Examples:
            x = torch.randn(num_tasks, number, self.width, generator=generator)
            y = torch.randn(num_tasks, number, 1, generator=generator)
            return rows(x, _labels(y, self.classify))

        return TaskBatch(draw(self.support_size), draw(self.query_size))


@dataclass(frozen=True)
class LinearGaussian:
    """y = <w, x> + noise, w ~ N(mean, spread^2 I) a task, x ~ N(0, I): the optimum is known.

    Args:
        mean: of the tasks' vectors, `[F]`.
        spread: standard deviation of each coordinate of a task's vector.
        noise: standard deviation of y around <w, x>.
        support_size: rows to adapt on.
        query_size: rows to be judged on.
    """

    mean: tuple[float, ...]
    spread: float = 1.0
    noise: float = 0.5
    support_size: int = 5
    query_size: int = 20

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        mean = torch.tensor(self.mean)
        w = mean + self.spread * torch.randn(num_tasks, len(mean), generator=generator)

        def draw(number: int) -> Examples:
            x = torch.randn(num_tasks, number, len(mean), generator=generator)
            y = (x @ w[:, :, None]) + self.noise * torch.randn(
                num_tasks, number, 1, generator=generator
            )
            return rows(x, y)

        return TaskBatch(draw(self.support_size), draw(self.query_size))

    def posterior_mean(self, support: Examples) -> Tensor:
        """The best predictor's vector for each task, `[T, F]`: no adapted model does better.

        mean + (X^T X + (noise/spread)^2 I)^-1 X^T (y - X mean): Bayes for a Gaussian prior.
        """
        x = torch.where(support["mask"][..., None], support["x"], 0.0)
        mean = torch.tensor(self.mean, dtype=x.dtype)
        residual = torch.where(support["mask"][..., None], support["y"], 0.0) - x @ mean[:, None]
        ridge = (self.noise / self.spread) ** 2 * torch.eye(len(mean), dtype=x.dtype)
        solved = torch.linalg.solve(x.mT @ x + ridge, x.mT @ residual)
        return mean + solved[..., 0]

    @property
    def unadapted_error(self) -> float:
        """The squared error of the best predictor that is the same for every task."""
        return self.spread**2 * len(self.mean) + self.noise**2

    def error(self, vectors: Tensor, query: Examples) -> Tensor:
        """Mean squared error of linear predictors `[T, F]` on each task's query rows, `[T]`."""
        predictions = query["x"] @ vectors[:, :, None]
        return (predictions - query["y"]).square().mean((1, 2))


def _labels(values: Tensor, classify: bool) -> Tensor:
    """Values `[T, S, 1]` as they are, or their signs as classes `[T, S]`."""
    return (values[..., 0] > 0).long() if classify else values
