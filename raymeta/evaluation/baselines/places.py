"""What the places of a user's events sell: log-popularity there, less log-popularity anywhere."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History, distinct_items, last_places
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_dataset import UserTasks


class PlacePopularity:
    """score(u, j) = mean over u's events with a known place p of
    log((n_pj + c q_j) / ((n_p + c) q_j)).

    n_pj is the number of training users whose last event on j was at p, n_p its sum over items, q_j
    the item's share of all events, c the smoothing; 0 where no place is known.

    Args:
        train: training users.
        matrix: their interactions.
        positive_types: events that count.
        num_places: places that the index knows.
        prior_users: c in users with as many items as users have on average.
    """

    def __init__(
        self,
        train: UserTasks,
        matrix: InteractionMatrix,
        *,
        positive_types: Sequence[int],
        num_places: int,
        prior_users: float,
    ) -> None:
        counts = np.zeros((num_places, matrix.num_items))
        for history in train:
            items = distinct_items(history, positive_types)
            places = last_places(history, items)
            np.add.at(counts, (places[places >= 0], items[places >= 0]), 1.0)
        share = (matrix.counts + 1.0) / (matrix.counts.sum() + matrix.num_items)
        smoothing = prior_users * matrix.counts.sum() / len(train)
        rate = (counts + smoothing * share) / (counts.sum(1, keepdims=True) + smoothing)
        self._log_ratio = np.log(rate / share).astype(np.float32)

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`."""
        num_places = len(self._log_ratio)
        known = [np.bincount(h.place[h.place >= 0], minlength=num_places) for h in histories]
        rows = np.stack(known).astype(np.float32)
        rows /= np.maximum(rows.sum(1, keepdims=True), 1.0)
        found: NDArray[np.float32] = rows @ self._log_ratio
        return found
