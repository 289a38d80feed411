"""Whom adapting helps: how gains differ over users, and over kinds of users.

A gain is a user's nDCG@10 adapted less that of the same model unadapted.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raymeta.evaluation.bootstrap import interval, resampled_means
from raymeta.evaluation.fold import OURS, UNADAPTED
from raymeta.evaluation.protocol import COUNTS
from raymeta.seeding import numpy_generator

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NUM_SLICES = 3
"""Kinds of users for each count: few, some, many."""

SLICE_TITLES = {"num_known": "items known", "num_later": "items to find"}
"""What a reader sees of the counts."""


def gain_distribution(gain_U: NDArray[np.float64]) -> dict[str, Any]:
    """Quantiles of the gain over users, and the shares of users who are better or worse off."""
    values = np.quantile(gain_U, QUANTILES)
    return {
        "quantiles": {f"{share:g}": float(v) for share, v in zip(QUANTILES, values, strict=True)},
        "better": float((gain_U > 0).mean()),
        "worse": float((gain_U < 0).mean()),
    }


def slices(users: pd.DataFrame, *, seed: int) -> list[dict[str, Any]]:
    """Mean gain of users with few, some and many items known, and to find.

    Slices are cut at the terciles of the count, so that each holds about a third of the users;
    where many users have the same count, fewer slices are left.

    Args:
        users: a row a user of one support size: `COUNTS`, and a column of nDCG@10 for `OURS` and
            `UNADAPTED`.
        seed: of the resampling.

    Returns:
        One entry a slice: `of` (the count), `from` and `to` (its least and greatest value),
        `num_users`, `adapted`, `unadapted`, `gain` (mean, low, high) and `worse`.
    """
    found = []
    for count in COUNTS:
        edges = np.quantile(users[count], np.arange(1, NUM_SLICES) / NUM_SLICES)
        group = np.searchsorted(np.unique(edges), users[count], side="left")
        for index in np.unique(group):
            part = users[group == index]
            scores = part[[OURS, UNADAPTED]].to_numpy(np.float64)
            gain = scores[:, 0] - scores[:, 1]
            low, high = interval(
                resampled_means(gain[:, None], numpy_generator(seed, "slices", count, int(index)))
            )
            found.append(
                {
                    "of": count,
                    "from": int(part[count].min()),
                    "to": int(part[count].max()),
                    "num_users": len(part),
                    "adapted": float(scores[:, 0].mean()),
                    "unadapted": float(scores[:, 1].mean()),
                    "gain": {
                        "mean": float(gain.mean()),
                        "low": float(low[0]),
                        "high": float(high[0]),
                    },
                    "worse": float((gain < 0).mean()),
                }
            )
    return found
