"""Rates of live traffic with their intervals, and whether its split is the one that was asked for.

Users are the unit: what one user does is not independent, so that intervals and tests over
impressions would be too sure of themselves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95

RATIO_ALARM = 0.001
"""A split less likely than this is taken for broken (Fabijan et al., "Diagnosing sample ratio
mismatch in online controlled experiments", KDD 2019): checked often, it should rarely be wrong."""


@dataclass(frozen=True)
class Rate:
    """A share with its interval.

    Attributes:
        successes: of `trials`.
        value: successes / trials; None of no trial.
        low: lower end of the 95% interval; 0 of no trial.
        high: upper end; 1 of no trial.
    """

    successes: int
    trials: int
    value: float | None
    low: float
    high: float


def rate(successes: int, trials: int, *, level: float = LEVEL) -> Rate:
    """A share with its score interval (Wilson, JASA 22, 1927): sound for few and for rare events.

        (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Raises:
        ValueError: more successes than trials, or fewer than none.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no share")
    if trials == 0:
        return Rate(0, 0, None, 0.0, 1.0)
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    return Rate(
        successes,
        trials,
        share,
        max(0.0, (centre - half) / scale),
        min(1.0, (centre + half) / scale),
    )


@dataclass(frozen=True)
class Difference:
    """One share less another: None where either has no trial."""

    value: float | None
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def difference(one: Rate, other: Rate) -> Difference:
    """`one` less `other`, with the hybrid score interval (Newcombe, Statistics in Medicine 17,
    1998, method 10), which two score intervals give without an approximation by a normal."""
    if one.value is None or other.value is None:
        return Difference(None, -1.0, 1.0)
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Difference(value, value - below, value + above)


def sample_ratio_p(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """How likely counts at least so far from the shares are, by Pearson's chi-squared test.

    Args:
        counts: users by variant.
        shares: the weights that traffic was given by, in any unit; a variant without one is
            left out.

    Returns:
        1 where there are fewer than two variants with a share, or no user.
    """
    names = [name for name, share in shares.items() if share > 0]
    observed = [counts.get(name, 0) for name in names]
    if len(names) < 2 or sum(observed) == 0:
        return 1.0
    whole = sum(shares[name] for name in names)
    expected = [sum(observed) * shares[name] / whole for name in names]
    return float(stats.chisquare(observed, expected).pvalue)


def sign_test_p(wins: int, losses: int) -> float:
    """How likely a split of wins at least so uneven is between equals: the exact two-sided test."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)
