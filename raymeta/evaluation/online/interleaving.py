"""Two rankings in one list: which of them a user's clicks prefer.

Team-draft interleaving (Radlinski, Kurup, Joachims, "How does clickthrough data reflect retrieval
quality?", CIKM 2008): as captains choose teams, the rankings take turns in pairs of picks, and a
coin says who picks first; each pick is the best item that is not in the list yet. A click counts
for the ranking that picked the item. Between equal rankings each wins as often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymeta.evaluation.online.statistics import sign_test_p


@dataclass(frozen=True)
class Interleaved:
    """One list out of two.

    Attributes:
        items: best first, each once.
        from_first: for each item, whether the first ranking picked it.
    """

    items: list[str]
    from_first: list[bool]


def team_draft(
    first: Sequence[str], second: Sequence[str], *, length: int, generator: np.random.Generator
) -> Interleaved:
    """The interleaved list, shorter than `length` where the rankings run out."""
    items: list[str] = []
    from_first: list[bool] = []
    taken: set[str] = set()
    waiting = [iter(first), iter(second)]
    while len(items) < length:
        before = len(items)
        first_leads = bool(generator.integers(2))
        for side in (0, 1) if first_leads else (1, 0):
            pick = next((item for item in waiting[side] if item not in taken), None)
            if pick is None or len(items) == length:
                continue
            items.append(pick)
            taken.add(pick)
            from_first.append(side == 0)
        if len(items) == before:
            break
    return Interleaved(items, from_first)


@dataclass(frozen=True)
class Preference:
    """How often clicks preferred one ranking, over users.

    Attributes:
        first: users who clicked more of the first ranking's items.
        second: of the second's.
        ties: as many of each, or none.
    """

    first: int = 0
    second: int = 0
    ties: int = 0

    def with_user(self, clicks_first: int, clicks_second: int) -> "Preference":
        """One more user, by all its clicks."""
        if clicks_first == clicks_second:
            return Preference(self.first, self.second, self.ties + 1)
        won = clicks_first > clicks_second
        return Preference(self.first + won, self.second + (not won), self.ties)

    @property
    def lead(self) -> float:
        """Share of deciding users who prefer the first, less a half; 0 where none decides."""
        decided = self.first + self.second
        return self.first / decided - 0.5 if decided else 0.0

    @property
    def p(self) -> float:
        """How likely so uneven a split is between equals (sign test over users)."""
        return sign_test_p(self.first, self.second)
