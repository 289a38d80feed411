"""A learner bound to meta-parameters that do not change any more: what is served.

What depends on them alone is worked out once. Users are adapted and scored by records of the
operations that the learner comes down to for so many users (`traced`), several times faster than
the learner itself. The learner stays the definition: a record is adopted after it gave the
learner's numbers.
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

RECORDED_USERS = (1, 4, 16)
"""Numbers of users that there are records for; fewer are filled up. A record of four costs what one
of one does, of sixteen half as much again: .08, .08, .13 ms for a context of 256 numbers, where the
learner lifted over them takes .4, .7, .9."""

_Run = Callable[[Examples], dict[str, Tensor]]


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
    """A gradient-based learner; a record for each number of users and width of a support."""

    def __init__(self, algorithm: GradientBased, meta_params: Params) -> None:
        self._algorithm = algorithm
        self._prepared = algorithm.prepare(meta_params)
        self._records: dict[object, _Run] = {}

    def adapt(self, support: Examples) -> TaskState:
        return self._by_records("adapt", self._by_learner, support)

    def score(self, state: TaskState, candidates: Tensor | None = None) -> Tensor:
        if candidates is not None:  # of any number: a record would serve once
            return self._algorithm.score_prepared(self._prepared, state, candidates)
        return self._by_records("score", self._scores, state)["scores"]

    def predict(self, state: TaskState, rows: Examples) -> Tensor:
        return self._algorithm.predict_prepared(self._prepared, state, rows)

    def warm_up(self, support: Examples) -> None:
        for num_users in RECORDED_USERS:
            rows = {
                name: value[:1].expand(num_users, *value.shape[1:])
                for name, value in support.items()
            }
            self.score(self.adapt({name: value.contiguous() for name, value in rows.items()}))

    def _by_learner(self, support: Examples) -> TaskState:
        return self._algorithm.adapt_prepared(self._prepared, support)

    def _scores(self, state: TaskState) -> dict[str, Tensor]:
        return {"scores": self._algorithm.score_prepared(self._prepared, state, None)}

    def _by_records(self, name: str, learner: _Run, rows: Examples) -> dict[str, Tensor]:
        """What `learner` makes of users, `[T, ...]`, by a record of the next size up.

        Users beyond the largest size are the next ones' turn: a record of more is no faster a user.
        """
        num_users, most = len(next(iter(rows.values()))), RECORDED_USERS[-1]
        if num_users > most:
            parts = [
                self._by_records(
                    name, learner, {key: value[begin : begin + most] for key, value in rows.items()}
                )
                for begin in range(0, num_users, most)
            ]
            return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        size = next(size for size in RECORDED_USERS if size >= num_users)
        if size > num_users:  # with the last user again, whose values are as good as any
            again = [*range(num_users), *[num_users - 1] * (size - num_users)]
            rows = {key: value[again] for key, value in rows.items()}
        found = self._record(name, learner, rows)(rows)
        return (
            found if size == num_users else {key: value[:num_users] for key, value in found.items()}
        )

    def _record(self, name: str, learner: _Run, rows: Examples) -> _Run:
        key = (name, *((field, value.shape) for field, value in rows.items()))
        if key not in self._records:
            self._records[key] = _recorded(name, learner, rows)
        return self._records[key]


def _recorded(name: str, learner: _Run, rows: Examples) -> _Run:
    """The record for rows of these shapes; the learner itself where it cannot be recorded."""
    expected = learner(rows)
    names = list(expected)

    def flat(*values: Tensor) -> list[Tensor]:
        return list(learner(dict(zip(rows, values, strict=True))).values())

    try:
        record: Flat = operations(flat, list(rows.values()), fast_calls=True).forward
        with torch.no_grad():
            require_equal(name, record(*rows.values()), list(expected.values()))
    except (RuntimeError, AdaptationError) as error:  # it reads values out of tensors, or draws
        logger.info("Users go through %s without a record: %s", name, error)
        return learner

    def run(rows: Examples) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(names, record(*rows.values()), strict=True))

    return run
