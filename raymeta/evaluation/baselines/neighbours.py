"""Item-kNN: items that share many training users with the support, by a shrunk cosine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix, support_indicator


class ItemNeighbours:
    """score(u, j) = sum over support items i of n_ij / ((n_i n_j)^exponent + shrink).

    n_ij is the number of training users with both items and n_i of those with i; an exponent of
    0.5 and no shrinkage give the cosine. All items are neighbours.

    Args:
        train: what to fit on.
        shrink: added to the denominator: damps pairs that few users share.
        exponent: of the item counts: how much popular items are held back.
    """

    def __init__(self, train: InteractionMatrix, *, shrink: float, exponent: float) -> None:
        weight = np.power(train.counts, np.float32(exponent))
        similarity = np.multiply.outer(weight, weight)
        similarity += np.float32(shrink)
        # an item that no training user has may have a denominator of 0; nothing is shared there
        np.divide(train.co_counts, similarity, out=similarity, where=similarity > 0)
        np.fill_diagonal(similarity, 0.0)
        self._similarity = similarity
        self._log_popularity = train.log_popularity

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`; log-popularity where the support is empty."""
        support = support_indicator(histories, len(self._log_popularity))
        scores: NDArray[np.float32] = support @ self._similarity
        scores[np.diff(support.indptr) == 0] = self._log_popularity
        return scores
