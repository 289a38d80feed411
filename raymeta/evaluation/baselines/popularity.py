"""Popularity: the same ranking for everyone, by the number of training users of an item."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix


class Popularity:
    """score(u, j) = log(1 + training users of j)."""

    def __init__(self, train: InteractionMatrix) -> None:
        self._log_popularity = train.log_popularity

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`, every row the same."""
        return np.tile(self._log_popularity, (len(histories), 1))
