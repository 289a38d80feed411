"""Purchases by category to be judged: users cut after so many visits, or at a date.

A method gives the probability of every (user, moment, category) from what is known at the moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from raymeta.data.events import SupportView, pad_asked, support_from_events
from raymeta.data.intent import Asked, Moments, bought_within, known_at
from raymeta.data.moments import baskets_of, cut_moments, intent_rows
from raymeta.data.task_dataset import UserTasks
from raymeta.evaluation.adapted import USERS_PER_BATCH
from raymeta.types import Examples, Params, TaskState

TARGET = "purchase_intent"


class PredictsIntents(Protocol):
    """The part of a meta-learner that predicting needs."""

    def adapt(self, meta_params: Params, support: Examples) -> TaskState: ...

    def predict(self, meta_params: Params, state: TaskState, rows: Examples) -> torch.Tensor: ...


@dataclass(frozen=True)
class CutIntents:
    """Users with moments to be judged.

    Attributes:
        size: visits known; -1 where users were cut at a date.
        user_rows: `[T]` positions in the list of users that they were cut from.
        supports: what is known of each.
        queries: the moments of each, at least one.
    """

    size: int
    user_rows: NDArray[np.int64]
    supports: UserTasks
    queries: list[Asked]

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def labels(self) -> NDArray[np.float32]:
        """`[N, C]`, the moments of all users end to end."""
        return np.concatenate([query.label for query in self.queries])

    @property
    def user(self) -> NDArray[np.int64]:
        """Which of the T users each moment is of, `[N]`."""
        return np.repeat(np.arange(len(self)), [len(query) for query in self.queries])

    def rows(self) -> pd.DataFrame:
        """A row a (moment, category): `size`, `user_row` and the label."""
        labels = self.labels
        user = np.repeat(self.user_rows[self.user], labels.shape[1])
        return pd.DataFrame({"size": self.size, "user_row": user, TARGET: labels.ravel()})


def end_of(users: UserTasks) -> int:
    """When the log of some users ends, in ms: what comes later is not known."""
    return int(users.events.timestamp_ms.max(initial=0))


def cut_after_visits(
    users: UserTasks, sizes: Sequence[int], view: SupportView, *, end_ms: int
) -> list[CutIntents]:
    """The users of each size; a size at which nobody has a moment is left out."""
    pairs = [cut_moments(history, sizes, view=view, end_ms=end_ms) for history in users]
    cuts = []
    for place, size in enumerate(sizes):
        kept = np.array([r for r, found in enumerate(pairs) if len(found[place][1])], np.int64)
        if len(kept):
            some = users.take(kept)
            supports = some.keep_events(some.events.visit < size)
            cuts.append(CutIntents(size, kept, supports, [pairs[r][place][1] for r in kept]))
    return cuts


def cut_at(users: UserTasks, now_ms: int, view: SupportView) -> CutIntents:
    """The users who have bought by `now_ms`, which is the one moment of each."""
    rows = intent_rows(view)
    baskets = baskets_of(users, view)
    before = baskets.time_ms <= now_ms
    num_before = np.bincount(baskets.user[before], minlength=len(users))
    kept = np.flatnonzero(num_before)
    moments = Moments(kept, baskets.first[kept] + num_before[kept] - 1, np.full(len(kept), now_ms))
    labels = bought_within(baskets, moments, horizon_ms=rows.horizon_ms)
    some = users.take(kept)
    supports = some.keep_events(some.events.timestamp_ms <= now_ms)
    return CutIntents(
        -1, kept, supports, [Asked(np.array([now_ms]), label[None]) for label in labels]
    )


def known_of(cut: CutIntents, view: SupportView) -> dict[str, NDArray[np.float32]]:
    """`raymeta.data.intent.known_at` of every moment, `[N]` or `[N, C]`."""
    baskets = baskets_of(cut.supports, view)
    now_ms = np.concatenate([query.now_ms for query in cut.queries])
    last = np.where(baskets.end > baskets.first, baskets.end - 1, -1)
    return known_at(baskets, Moments(cut.user, last[cut.user], now_ms))


def predicted(
    algorithm: PredictsIntents,
    meta_params: Params,
    cut: CutIntents,
    view: SupportView,
    *,
    adapted: bool = True,
) -> NDArray[np.float64]:
    """The probabilities `[N, C]` after adapting to each user's support.

    Without `adapted` no row of the support moves the user's own parameters; what is known at the
    moment is read all the same.
    """
    category = torch.arange(len(intent_rows(view).categories))
    parts = []
    for start in range(0, len(cut), USERS_PER_BATCH):
        batch = slice(start, start + USERS_PER_BATCH)
        support = support_from_events(cut.supports[batch], view)
        if not adapted:
            support["mask"] = torch.zeros_like(support["mask"])
        state = algorithm.adapt(meta_params, support)
        query = pad_asked(cut.queries[batch])
        rows = {"category": category.expand(len(query["mask"]), -1)}
        found = [
            algorithm.predict(meta_params, state, {**rows, "now_ms": now_ms})[..., 0]
            for now_ms in query["now_ms"].unbind(1)
        ]
        parts.append(torch.stack(found, 1)[query["mask"]].double().numpy())
    return np.concatenate(parts)
