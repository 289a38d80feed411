"""Two other domains, generated: portfolios that react to factors, patients that react to doses.

Both are linear in known features given the task, with a Gaussian prior over tasks, so that the best
adapted prediction is a posterior mean (`LinearGaussian.posterior_mean` in the features). They show
that a domain is a choice of rows and features, not of code.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raymeta.data.worlds.known import LinearGaussian
from raymeta.types import Examples, TaskBatch

FACTORS = ("market", "size", "value", "momentum", "rates")


@dataclass(frozen=True)
class Portfolios:
    """Next-day return of one asset from the day's factor returns; a task is an asset.

    An asset's loadings are Gaussian around the market's (1 on the market, 0 elsewhere), a year of
    history is too short to estimate them alone, and other assets tell where to begin.

    Args:
        days: days of an asset's history to adapt on.
        query_days: the days after them.
    """

    days: int = 8
    query_days: int = 20

    @property
    def law(self) -> LinearGaussian:
        """The world in its features: daily factor returns in percent."""
        mean = (1.0, *[0.0] * (len(FACTORS) - 1))
        return LinearGaussian(
            mean, spread=0.5, noise=1.0, support_size=self.days, query_size=self.query_days
        )

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        """Tasks with `x` `[T, S, factors]` and `y` `[T, S, 1]`."""
        return self.law.sample(num_tasks, generator)


@dataclass(frozen=True)
class Patients:
    """Response of a patient to a dose over time; a task is a patient.

    response = a + b * log(1 + dose) + c * hours + d * log(1 + dose) * hours, with (a, b, c, d)
    Gaussian over patients: random effects, as in pharmacokinetics. `x` holds dose and hours as
    measured; `features` are those of the law, standardised to unit variance.

    Args:
        visits: measurements to adapt on.
        query_visits: later ones.
    """

    visits: int = 5
    query_visits: int = 10

    @property
    def law(self) -> LinearGaussian:
        """The world in its features."""
        return LinearGaussian(
            (1.0, 2.0, -1.0, 0.5),
            spread=0.7,
            noise=0.3,
            support_size=self.visits,
            query_size=self.query_visits,
        )

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        """Tasks with `x` `[T, S, 2]` (dose in mg, hours since it) and `y` `[T, S, 1]`."""
        law = self.law
        mean = torch.tensor(law.mean)
        effect = mean + law.spread * torch.randn(num_tasks, len(mean), generator=generator)

        def draw(number: int) -> Examples:
            shape = (num_tasks, number)
            dose = 100.0 * torch.rand(shape, generator=generator)
            hours = 24.0 * torch.rand(shape, generator=generator)
            x = torch.stack([dose, hours], -1)
            noise = law.noise * torch.randn((*shape, 1), generator=generator)
            y = self.features(x) @ effect[:, :, None] + noise
            return {"x": x, "y": y, "mask": torch.ones(shape, dtype=torch.bool)}

        return TaskBatch(draw(law.support_size), draw(law.query_size))

    @staticmethod
    def features(x: Tensor) -> Tensor:
        """Dose and hours `[..., 2]` as the four features of the law, `[..., 4]`."""
        dose, hours = torch.log1p(x[..., 0]) / 4.0, (x[..., 1] - 12.0) / 7.0
        return torch.stack([torch.ones_like(dose), dose, hours, dose * hours], -1)

    def in_features(self, batch: TaskBatch) -> TaskBatch:
        """The same tasks with `x` as the law's features."""
        return replace(
            batch,
            support={**batch.support, "x": self.features(batch.support["x"])},
            query={**batch.query, "x": self.features(batch.query["x"])},
        )
