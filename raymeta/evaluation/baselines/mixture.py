"""Log-popularity plus other scorers, with weights that depend on how much is known of the user."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.episodes import Unit, num_units
from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix
from raymeta.evaluation.protocol import Scorer


class Mixture:
    """score(u, j) = standardised log-popularity + sum over parts p of w_p(v) * score_p / spread_p.

    A part's spread is the standard deviation of a user's scores over the catalogue, so that weights
    mean the same for a small basket and a large one. v is the number of units in the support;
    weights are those of the largest size in `weights` that is not above v.

    Args:
        train: where popularity comes from.
        parts: the scorers to add.
        weights: support size -> one weight a part.
        unit: what support size counts.
        positive_types: with `unit="items"`, the events that count.
    """

    def __init__(
        self,
        train: InteractionMatrix,
        parts: Sequence[Scorer],
        *,
        weights: Mapping[int, Sequence[float]],
        unit: Unit,
        positive_types: Sequence[int],
    ) -> None:
        self._prior = standardise(train.log_popularity[None])
        self._parts = parts
        self._sizes = np.array(sorted(weights))
        self._weights = np.array([weights[int(size)] for size in self._sizes], np.float32)
        self._unit: Unit = unit
        self._positive_types = positive_types

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`; log-popularity where the support is empty."""
        known = [
            num_units(h, unit=self._unit, positive_types=self._positive_types) for h in histories
        ]
        row = (np.searchsorted(self._sizes, known, side="right") - 1).clip(min=0)
        weights = self._weights[row] * (np.array(known) > 0)[:, None]
        scores: NDArray[np.float32] = np.repeat(self._prior, len(histories), axis=0)
        for part, weight in zip(self._parts, weights.T, strict=True):
            scores += weight[:, None].astype(np.float32) * standardise(part.score(histories))
        return scores


def standardise(scores_TI: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row over its standard deviation; a constant row stays as it is."""
    spread = scores_TI.std(axis=1, keepdims=True)
    spread[spread == 0] = 1.0
    return scores_TI / spread
