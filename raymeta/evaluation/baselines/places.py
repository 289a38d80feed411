"""What the places of a user's events sell: log-popularity there, less log-popularity anywhere."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History, placed_items
from raymeta.models.place_prior import PlacePrior


class PlacePopularity:
    """score(u, j) = mean over u's events with a known place of how much oftener j is had there.

    The ratio is that of `place_prior`, by whole counts; 0 where no place is known.

    Args:
        train: training users.
        positive_types: events that count.
        num_places, num_items: what the indices know.
        prior_users: its smoothing.
    """

    def __init__(
        self,
        train: Sequence[History],
        *,
        positive_types: Sequence[int],
        num_places: int,
        num_items: int,
        prior_users: float,
    ) -> None:
        items, places = placed_items(train, positive_types)
        prior = PlacePrior.count(places, items, (num_places, num_items), prior_users=prior_users)
        self._log_ratio = prior.vectors.numpy()

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`."""
        num_places = len(self._log_ratio)
        known = [np.bincount(h.place[h.place >= 0], minlength=num_places) for h in histories]
        rows = np.stack(known).astype(np.float32)
        rows /= np.maximum(rows.sum(1, keepdims=True), 1.0)
        found: NDArray[np.float32] = rows @ self._log_ratio
        return found
