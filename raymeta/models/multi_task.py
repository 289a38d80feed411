"""Several scenarios of one adapted state: their query losses added up, each weighed.

    loss = sum over scenarios s of exp(-v_s) loss_s + v_s / 2

v_s = log variance_s is learned with everything else: Kendall, Gal, Cipolla: Multi-Task Learning
Using Uncertainty to Weigh Losses, CVPR 2018, eq. 7-10, in the form for likelihoods of classes. At
its best v_s a scenario counts 1 / (2 loss_s), so that no scale of a loss matters. With fixed
weights the loss is their weighted sum.

Adapting knows of no scenario: the support loss, and so a user's state, is that of the one model
that serves them all. What weighs the losses is left out of what is served.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raymeta.models.base import ReadsFeatures, ServedSmaller, TaskModel
from raymeta.types import Examples, Params

QueryLoss = Callable[[Params, Params, Examples, Examples], Tensor]
"""As `TaskModel.query_loss`."""

LOG_VARIANCE = "log_variance"


class MultiTask:
    """A model judged by the query losses of several scenarios.

    Args:
        model: what is adapted, and scores.
        losses: scenario -> its query loss, in the parameters of `model`.
        weights: what each loss counts, by the order of `losses`; None: by their learned variances.
    """

    def __init__(
        self,
        model: TaskModel,
        losses: Mapping[str, QueryLoss],
        *,
        weights: tuple[float, ...] | None = None,
    ) -> None:
        self._model, self._losses, self._weights = model, dict(losses), weights
        self.adaptable, self.head = model.adaptable, model.head

    def init(self, generator: torch.Generator) -> Params:
        """The model's start; every scenario counts 1."""
        params = self._model.init(generator)
        if self._weights is None:
            params = {**params, LOG_VARIANCE: torch.zeros(len(self._losses))}
        return params

    def tables(self) -> Params:
        return self._model.tables()

    def serving(self) -> TaskModel:
        """The model itself, as it is served."""
        return self._model.serving() if isinstance(self._model, ServedSmaller) else self._model

    def serving_params(self, params: Params) -> Params:
        """Parameters of the model that is served."""
        own = {name: value for name, value in params.items() if name != LOG_VARIANCE}
        return self._model.serving_params(own) if isinstance(self._model, ServedSmaller) else own

    def shared(self, params: Params) -> Params:
        return self._model.shared(params)

    def given(self, params: Params, support: Examples) -> Params:
        """What the model reads of a task before its first step, if it reads anything."""
        return self._model.given(params, support) if isinstance(self._model, ReadsFeatures) else {}

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        return self._model.support_loss(params, shared, support)

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """The weighed sum; `query` is what `joined_queries` gives."""
        losses = torch.stack(
            [
                loss(params, shared, support, _query_of(name, query))
                for name, loss in self._losses.items()
            ]
        )
        if self._weights is not None:
            return losses @ losses.new_tensor(self._weights)
        log_variance = params[LOG_VARIANCE]
        return (torch.exp(-log_variance) * losses + 0.5 * log_variance).sum()

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        return self._model.score(params, shared, candidates)


def joined_queries(by_scenario: Mapping[str, Examples]) -> Examples:
    """The queries of several scenarios over the same tasks, as one: `scenario/field` -> rows."""
    return {
        f"{scenario}/{name}": value
        for scenario, query in by_scenario.items()
        for name, value in query.items()
    }


def _query_of(scenario: str, query: Examples) -> Examples:
    prefix = f"{scenario}/"
    return {n.removeprefix(prefix): v for n, v in query.items() if n.startswith(prefix)}
