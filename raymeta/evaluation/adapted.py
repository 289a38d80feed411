"""A meta-learner as a scorer: adapted on the support, or left at its start.

The same `support_from_events` and `adapt` that training and serving use.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.data.events import History, SupportView, support_from_events
from raymeta.types import Examples, Params, TaskState

USERS_PER_BATCH = 64
"""Users adapted at once: larger batches leave the cache and are no faster."""


class Adapts(Protocol):
    """The part of a meta-learner that scoring needs."""

    def adapt(self, meta_params: Params, support: Examples) -> TaskState: ...

    def score(
        self, meta_params: Params, state: TaskState, candidates: torch.Tensor | None = None
    ) -> torch.Tensor: ...


class AdaptedScorer:
    """Scores of a meta-learner after adapting to each user's support.

    Args:
        algorithm: the meta-learner.
        meta_params: what meta-training learned.
        view: which events adapting sees.
    """

    def __init__(self, algorithm: Adapts, meta_params: Params, *, view: SupportView) -> None:
        self._algorithm = algorithm
        self._meta_params = meta_params
        self._view = view

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`; a user without events gets the meta-learner's start."""
        parts = []
        for start in range(0, len(histories), USERS_PER_BATCH):
            support = support_from_events(histories[start : start + USERS_PER_BATCH], self._view)
            state = self._algorithm.adapt(self._meta_params, support)
            parts.append(self._algorithm.score(self._meta_params, state))
        return torch.cat(parts).float().numpy()


class UnadaptedScorer:
    """The same meta-learner without a look at the user: adapted to an empty support."""

    def __init__(self, algorithm: Adapts, meta_params: Params, *, view: SupportView) -> None:
        adapted = AdaptedScorer(algorithm, meta_params, view=view)
        self._scores = adapted.score([History.empty()])

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`, every row the same."""
        return np.repeat(self._scores, len(histories), axis=0)
