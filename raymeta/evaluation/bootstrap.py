"""Intervals by resampling users: of a mean, and of a paired difference.

All columns of a table are resampled together, so that methods are compared on the same users.
"""

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95

_WEIGHTS_AT_ONCE = 20_000_000
"""Resampling weights are made in pieces of so many numbers (160 MB)."""


def resampled_means(
    values_UM: NDArray[np.float64],
    generator: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> NDArray[np.float64]:
    """Means of each column over users drawn with replacement: `[num_resamples, M]`.

    Args:
        values_UM: a row a user, a column a quantity.
        generator: draws the users.
    """
    num_users = len(values_UM)
    step = max(1, _WEIGHTS_AT_ONCE // num_users)
    means = []
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        drawn = generator.multinomial(num_users, np.full(num_users, 1 / num_users), size=size)
        means.append(drawn.astype(np.float64) @ values_UM / num_users)
    return np.concatenate(means)


def interval(
    resampled_RM: NDArray[np.float64], *, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The percentile interval of each column, (low `[M]`, high `[M]`)."""
    tail = (1 - level) / 2
    low, high = np.quantile(resampled_RM, [tail, 1 - tail], axis=0)
    return low, high
