"""Impressions to be judged: users cut after so many, and what a method says of the later ones.

A method gives (pCTR, pCTCVR) of each later impression of a user known by the support alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from raymeta.data.episodes import cut_impressions
from raymeta.data.events import (
    History,
    SupportView,
    pad_labelled,
    padded_width,
    support_from_events,
)
from raymeta.data.impressions import Labelled
from raymeta.data.task_dataset import UserTasks
from raymeta.types import Examples, Params, TaskState

TARGETS = ("click", "conversion")
USERS_PER_BATCH = 256


class PredictsImpressions(Protocol):
    """The part of a meta-learner that predicting needs."""

    def adapt(self, meta_params: Params, support: Examples) -> TaskState: ...

    def predict(self, meta_params: Params, state: TaskState, rows: Examples) -> Tensor: ...


@dataclass(frozen=True)
class CutUsers:
    """The users who have something left to judge after `size` impressions.

    Attributes:
        user_rows: `[T]` positions in the list of users that they were cut from.
        supports, queries: of each.
        num_outside: impressions of items outside the catalogue, over all users.
    """

    size: int
    user_rows: NDArray[np.int64]
    supports: list[History]
    queries: list[Labelled]
    num_outside: int = 0

    def __len__(self) -> int:
        return len(self.supports)

    def rows(self) -> pd.DataFrame:
        """A row an impression: `size`, `user_row`, and 1 or 0 of each target."""
        columns = {name: self._joined(name) for name in TARGETS}
        lengths = [len(query) for query in self.queries]
        return pd.DataFrame(
            {"size": self.size, "user_row": np.repeat(self.user_rows, lengths), **columns}
        )

    def _joined(self, name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(query, name) for query in self.queries])


def cut_users(users: UserTasks, sizes: Sequence[int], view: SupportView) -> list[CutUsers]:
    """The users of each size; a size at which nobody has anything left is left out."""
    assert view.feedback is not None, "data.feedback names what is joined"
    shown = users.events.event_type == view.feedback.impression
    outside = int((shown & (users.events.item < 0)).sum())
    cuts = []
    for size in sizes:
        pairs = [cut_impressions(history, size, types=view.feedback) for history in users]
        kept = [row for row, (_, query) in enumerate(pairs) if len(query)]
        if kept:
            supports, queries = [pairs[r][0] for r in kept], [pairs[r][1] for r in kept]
            cuts.append(CutUsers(size, np.array(kept), supports, queries, outside))
    return cuts


def predicted(
    algorithm: PredictsImpressions,
    meta_params: Params,
    cut: CutUsers,
    view: SupportView,
    *,
    adapted: bool = True,
) -> NDArray[np.float64]:
    """(pCTR, pCTCVR) of every later impression `[N, 2]`, after adapting to each user's support."""
    parts = []
    for start in range(0, len(cut), USERS_PER_BATCH):
        batch = slice(start, start + USERS_PER_BATCH)
        histories, queries = cut.supports[batch], cut.queries[batch]
        if not adapted:
            histories = [History.empty(history.features) for history in histories]
        state = algorithm.adapt(meta_params, support_from_events(histories, view))
        rows = pad_labelled(queries, width=padded_width(map(len, queries)))
        found = algorithm.predict(meta_params, state, {n: rows[n] for n in ("item", "value")})
        parts.append(found[rows["mask"]].double().numpy())
    return np.concatenate(parts)


def log_losses(labels_N2: NDArray[np.floating], p_N2: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cross-entropy of each impression and target in nats, `[N, 2]`."""
    p = np.clip(np.asarray(p_N2, np.float64), 1e-6, 1.0 - 1e-6)
    return -np.where(labels_N2 > 0, np.log(p), np.log1p(-p))


def method_rows(
    name: str,
    rows: pd.DataFrame,
    p_NT: NDArray[np.floating],
    *,
    user_ids: NDArray[np.str_],
    targets: Sequence[str],
) -> pd.DataFrame:
    """Rows to be judged (`user_row`, labels) with the users' ids and what a method says of them."""
    rows["user_row"] = user_ids[rows["user_row"].to_numpy()].astype(object)
    rows = rows.rename(columns={"user_row": "user_id"})
    rows.insert(0, "method", name)
    columns = {f"p_{t}": p_NT[:, i].astype(np.float32) for i, t in enumerate(targets)}
    return rows.assign(**columns)
