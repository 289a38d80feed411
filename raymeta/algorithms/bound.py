"""A learner bound to meta-parameters that do not change any more: what is served.

What depends on them alone is worked out once. A few users are adapted one after the other by a
record of the operations that adapting one comes down to (`traced`), several times faster than the
learner itself; a larger batch, whose users share the cost of Python, by the learner. The learner
stays the definition: a record is adopted after it gave the learner's numbers.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.algorithms.traced import Flat, operations, require_equal
from raymeta.errors import AdaptationError
from raymeta.types import Examples, Params, TaskState

logger = logging.getLogger(__name__)

MAX_BY_RECORD = 6
"""Users up to which the record is faster than the learner lifted over them: 75 us a user against
500 us a batch, for a context of 256 numbers."""

_Adapt = Callable[[Examples], TaskState]


class BoundLearner(Protocol):
    """`MetaAlgorithm.adapt` and `score` with the meta-parameters left out."""

    def adapt(self, support: Examples) -> TaskState: ...

    def score(self, state: TaskState, candidates: Tensor | None = None) -> Tensor: ...

    def predict(self, state: TaskState, rows: Examples) -> Tensor:
        """Probabilities `[T, C, targets]`; a learner whose model gives none refuses."""
        ...

    def warm_up(self, support: Examples) -> None:
        """Does now what adapting a support of this width does the first time."""
        ...


def bind(algorithm: MetaAlgorithm, meta_params: Params) -> BoundLearner:
    """The learner bound to meta-parameters; neither may change afterwards."""
    if isinstance(algorithm, GradientBased):
        return _Recorded(algorithm, meta_params)
    return _Plain(algorithm, meta_params)


class _Plain:
    """Any learner."""

    def __init__(self, algorithm: MetaAlgorithm, meta_params: Params) -> None:
        self._algorithm, self._meta_params = algorithm, meta_params

    def adapt(self, support: Examples) -> TaskState:
        return self._algorithm.adapt(self._meta_params, support)

    def score(self, state: TaskState, candidates: Tensor | None = None) -> Tensor:
        return self._algorithm.score(self._meta_params, state, candidates)

    def predict(self, state: TaskState, rows: Examples) -> Tensor:
        del state, rows
        raise AdaptationError(
            f"{type(self._algorithm).__name__} orders items and gives no probabilities.",
            remedy="Use a learner of a model that has them, such as ctr.",
        )

    def warm_up(self, support: Examples) -> None:
        del support


class _Recorded:
    """A gradient-based learner; a record for each width of a user's support."""

    def __init__(self, algorithm: GradientBased, meta_params: Params) -> None:
        self._algorithm = algorithm
        self._prepared = algorithm.prepare(meta_params)
        self._records: dict[object, _Adapt] = {}

    def adapt(self, support: Examples) -> TaskState:
        num_users = len(next(iter(support.values())))
        if num_users == 1:
            return self._adapt_one(support)
        if num_users > MAX_BY_RECORD:
            return self._by_learner(support)
        states = [
            self._adapt_one({name: rows[user : user + 1] for name, rows in support.items()})
            for user in range(num_users)
        ]
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def _adapt_one(self, support: Examples) -> TaskState:
        key = tuple((name, value.shape) for name, value in support.items())
        if key not in self._records:
            self._records[key] = self._recorded(support)
        return self._records[key](support)

    def score(self, state: TaskState, candidates: Tensor | None = None) -> Tensor:
        return self._algorithm.score_prepared(self._prepared, state, candidates)

    def predict(self, state: TaskState, rows: Examples) -> Tensor:
        return self._algorithm.predict_prepared(self._prepared, state, rows)

    def warm_up(self, support: Examples) -> None:
        self.adapt(support)

    def _by_learner(self, support: Examples) -> TaskState:
        return self._algorithm.adapt_prepared(self._prepared, support)

    def _recorded(self, support: Examples) -> "_Adapt":
        """The record for supports of this width; the learner itself where it cannot be recorded."""
        expected = self._by_learner(support)
        names = list(expected)

        def flat(*rows: Tensor) -> list[Tensor]:
            return list(self._by_learner(dict(zip(support, rows, strict=True))).values())

        try:
            record: Flat = operations(flat, list(support.values()), fast_calls=True).forward
            with torch.no_grad():
                require_equal("adapt", record(*support.values()), list(expected.values()))
        except (RuntimeError, AdaptationError) as error:  # it reads values out of tensors, or draws
            logger.info("Users are adapted without a record: %s", error)
            return self._by_learner

        def adapt(task: Examples) -> TaskState:
            with torch.no_grad():
                return dict(zip(names, record(*task.values()), strict=True))

        return adapt
