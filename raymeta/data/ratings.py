"""Mean ratings of items, shrunk as far as the data say: what is known of an item without a user."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.errors import DataError


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
