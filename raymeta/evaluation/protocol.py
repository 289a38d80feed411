"""Protocol P1: rank the whole catalogue for users that training never met, after v units of events.

A user's history is cut after its first v visits (or items); what comes later is to be found. The
protocol masks support items and computes metrics; a scorer only scores. It knows neither how a
scorer was made nor how users were split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from raymeta.data.episodes import Unit, cut
from raymeta.data.events import History
from raymeta.errors import DataError
from raymeta.evaluation.metrics import CUTOFF, METRICS, ceiling, chance, coverage, user_metrics

COUNTS = ("num_known", "num_later")
"""Of each user of a support size: catalogue items in the support, and items to find."""

SCORES_PER_BATCH = 4_000_000
"""Users are scored in batches of about so many scores (16 MB in float32)."""


class Scorer(Protocol):
    """Anything that ranks a catalogue for users known by their events."""

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """Scores `[T, I]` over the whole catalogue, higher is better; no NaN.

        A history holds the support only, and may be empty. Support items are scored like any
        others: the protocol masks them.
        """
        ...


@dataclass(frozen=True)
class Tasks:
    """The users that count at one support size: those with something left to find.

    Attributes:
        size: units in the support.
        user_rows: `[T]` positions in the list of users that the tasks were cut from.
        supports: the support of each user.
        queries: the catalogue items to find, ascending and never empty.
        num_outside: later positive events on items that are not in the catalogue, over all users.
        repeat: support items are ranked too, and count where they are bought again.
    """

    size: int
    user_rows: NDArray[np.int64]
    supports: list[History]
    queries: list[NDArray[np.int64]]
    num_outside: int
    repeat: bool = False

    def __len__(self) -> int:
        return len(self.supports)

    def slice(self, start: int, stop: int) -> "Tasks":
        """The tasks from `start` to before `stop`; `num_outside` is that of all of them."""
        return replace(
            self,
            user_rows=self.user_rows[start:stop],
            supports=self.supports[start:stop],
            queries=self.queries[start:stop],
        )

    def counts(self) -> pd.DataFrame:
        """A row a task: `size`, `user_row` and `COUNTS`."""
        return pd.DataFrame(
            {
                "size": self.size,
                "user_row": self.user_rows,
                "num_known": [len(np.unique(h.item[h.item >= 0])) for h in self.supports],
                "num_later": [len(query) for query in self.queries],
            }
        )

    def masked(self, num_items: int) -> torch.Tensor:
        """Items that may not be recommended: bool `[T, I]`."""
        if self.repeat:
            return torch.zeros(len(self), num_items, dtype=torch.bool)
        return _membership([h.item[h.item >= 0] for h in self.supports], num_items)

    def relevant(self, num_items: int) -> torch.Tensor:
        """Items to find: bool `[T, I]`."""
        return _membership(self.queries, num_items)


@dataclass(frozen=True)
class Scored:
    """One method over one list of users.

    Attributes:
        users: a row a (size, user): `size`, `user_row`, `COUNTS`, then one column a metric.
        coverage: share of the catalogue recommended to anyone in the first ten, by size.
    """

    users: pd.DataFrame
    coverage: dict[int, float]


def cut_tasks(
    histories: Sequence[History],
    sizes: Sequence[int],
    *,
    unit: Unit,
    positive_types: Sequence[int],
    repeat: bool = False,
) -> list[Tasks]:
    """The tasks of each support size, in the order of `sizes`.

    Raises:
        DataError: no user has anything left to find at some size.
    """
    tasks = []
    for size in sizes:
        kept: list[tuple[int, History, NDArray[np.int64]]] = []
        outside = 0
        for row, history in enumerate(histories):
            support, query = cut(
                history, size, unit=unit, positive_types=positive_types, repeat=repeat
            )
            outside += _positive_outside(history, positive_types)
            outside -= _positive_outside(support, positive_types)
            if len(query):
                kept.append((row, support, query))
        if not kept:
            raise DataError(
                f"No user has an item to find after {size} {unit}.",
                remedy="Leave this support size out, or evaluate on more users.",
            )
        rows, supports, queries = zip(*kept, strict=True)
        tasks.append(
            Tasks(size, np.array(rows, np.int64), list(supports), list(queries), outside, repeat)
        )
    return tasks


def score_tasks(scorer: Scorer, tasks: Sequence[Tasks], *, num_items: int) -> Scored:
    """Ranks the catalogue for every task and measures each user."""
    frames, covered = [], {}
    for sized in tasks:
        parts, top = [], []
        for batch in batches(sized, num_items):
            scores = torch.from_numpy(scorer.score(batch.supports))
            scores = scores.masked_fill(batch.masked(num_items), -torch.inf)
            values, ranked = user_metrics(scores, batch.relevant(num_items))
            parts.append(pd.DataFrame({name: values[name].numpy() for name in METRICS}))
            top.append(ranked)
        frames.append(pd.concat([sized.counts(), pd.concat(parts, ignore_index=True)], axis=1))
        covered[sized.size] = coverage(torch.cat(top), num_items)
    return Scored(pd.concat(frames, ignore_index=True), covered)


def reference_lines(tasks: Sequence[Tasks], *, num_items: int) -> dict[str, Scored]:
    """`chance` (expectation of a random ranking) and `ceiling` (a perfect one)."""
    frames: dict[str, list[pd.DataFrame]] = {"chance": [], "ceiling": []}
    for sized in tasks:
        counts = sized.counts()
        relevant = counts["num_later"].to_numpy()
        hidden = 0 if sized.repeat else counts["num_known"].to_numpy()
        candidates = np.full(len(sized), num_items) - hidden
        for name, values in (
            ("chance", chance(relevant, candidates)),
            ("ceiling", ceiling(relevant)),
        ):
            frames[name].append(counts.assign(**values))
    return {name: Scored(pd.concat(parts, ignore_index=True), {}) for name, parts in frames.items()}


def batches(tasks: Tasks, num_items: int) -> list[Tasks]:
    """The tasks in batches whose score matrices stay small."""
    step = max(CUTOFF, SCORES_PER_BATCH // num_items)
    return [tasks.slice(start, start + step) for start in range(0, len(tasks), step)]


def _positive_outside(history: History, positive_types: Sequence[int]) -> int:
    return int(((history.item < 0) & np.isin(history.event_type, positive_types)).sum())


def _membership(items: Sequence[NDArray[np.int64]], num_items: int) -> torch.Tensor:
    member = np.zeros((len(items), num_items), np.bool_)
    for row, values in enumerate(items):
        member[row, values] = True
    return torch.from_numpy(member)
