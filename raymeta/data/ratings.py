"""Mean ratings of items, shrunk as far as the data say, and biases of users beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.errors import DataError

USER_SHRINKAGE = 4.0
"""Ratings after which a user's bias is half believed, where nothing was tuned."""


@dataclass(frozen=True)
class RatingBiases:
    """r_uj = mean_j + b_u: item means and what they leave to a user.

    Attributes:
        item_means: shrunk, `[I]`.
        counts: ratings of each item, `[I]`.
        totals: sum over an item's ratings of r - b_u - mean, `[I]`.
        mean: of all ratings.
        user_shrinkage: ratings after which a user's bias is half believed.
    """

    item_means: NDArray[np.float64]
    counts: NDArray[np.int64]
    totals: NDArray[np.float64]
    mean: float
    user_shrinkage: float

    def of_user(self, items: NDArray[np.int64], ratings: NDArray[np.floating]) -> float:
        """b_u from a user's ratings; 0 without any."""
        left = float((ratings - self.item_means[items]).sum())
        return left / (len(items) + self.user_shrinkage)


def rated(
    histories: Sequence[History], *, positive_types: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Item and rating of every event of a positive type that has a value, `[R]` each."""
    items, values = [np.empty(0, np.int64)], [np.empty(0, np.float64)]
    for history in histories:
        keep = np.isin(history.event_type, positive_types) & (history.item >= 0)
        keep &= np.isfinite(history.value)
        items.append(history.item[keep])
        values.append(history.value[keep].astype(np.float64))
    return np.concatenate(items), np.concatenate(values)


def shrunk_means(
    items: NDArray[np.int64], ratings: NDArray[np.float64], *, num_items: int
) -> NDArray[np.float64]:
    """(sum of an item's ratings + c m) / (n + c), `[I]`, with m the mean of all ratings.

    c = (variance within items) / (variance between their means): the empirical Bayes estimate for
    normal item means, both variances by the moments of a one-way layout (Searle, Casella,
    McCulloch: Variance Components, 1992, section 3.6). An item without ratings gets m.

    Raises:
        DataError: there are no ratings.
    """
    if len(ratings) == 0:
        raise DataError(
            "No event of a training user has a value, so there are no ratings to learn from.",
            remedy="Map the ratings to the column `value`, or set model.feedback: implicit.",
        )
    count = np.bincount(items, minlength=num_items).astype(np.float64)
    total = np.bincount(items, weights=ratings, minlength=num_items)
    mean = float(ratings.mean())
    has = count > 0
    means = np.where(has, total / np.maximum(count, 1.0), mean)
    within = float(((ratings - means[items]) ** 2).sum()) / max(1, len(ratings) - int(has.sum()))
    spread = float((count * (means - mean) ** 2).sum()) - within * (int(has.sum()) - 1)
    size = len(ratings) - float((count**2).sum()) / len(ratings)
    between = max(spread / size if size > 0 else 0.0, 1e-6)
    shrinkage = within / between
    return (total + shrinkage * mean) / (count + shrinkage)


def fit_biases(
    histories: Sequence[History],
    *,
    num_items: int,
    positive_types: Sequence[int],
    user_shrinkage: float = USER_SHRINKAGE,
    num_rounds: int = 10,
) -> RatingBiases:
    """Each bias the shrunk mean of what the other leaves, fitted by turns.

    Koren, "Factorization Meets the Neighborhood", KDD 2008, section 2.1.

    Args:
        histories: of training users.
        user_shrinkage: ratings after which a user's bias is half believed.
        num_rounds: turns of fitting items, then users.

    Raises:
        DataError: there are no ratings.
    """
    per_user = [rated([h], positive_types=positive_types) for h in histories]
    items = np.concatenate([np.empty(0, np.int64), *(item for item, _ in per_user)])
    ratings = np.concatenate([np.empty(0), *(rating for _, rating in per_user)])
    counts = np.bincount(items, minlength=num_items)
    mean = float(ratings.mean()) if len(ratings) else 0.0
    bias = np.zeros(len(ratings))
    for _ in range(num_rounds):
        means = shrunk_means(items, ratings - bias, num_items=num_items)
        found = RatingBiases(means, counts, np.empty(0), mean, user_shrinkage)
        bias = np.repeat(
            [found.of_user(item, rating) for item, rating in per_user],
            [len(item) for item, _ in per_user],
        )
    left = ratings - bias - mean
    totals = np.bincount(items, weights=left, minlength=num_items).astype(np.float64)
    return replace(found, totals=totals)
