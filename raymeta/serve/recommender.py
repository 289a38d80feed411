"""One artifact at work: from a user's record to adapted state to a ranked list, in process.

Concurrent users are adapted in one batched call of the artifact's `adapt`, in a worker thread, so
the event loop stays free. Leaves where records come from, and keeping states, to `service`.

Shapes: T users in a batch, I items in the catalogue.
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raymeta.data.events import History, support_from_events
from raymeta.errors import AdaptationError
from raymeta.serve.batching import Gatherer
from raymeta.serve.states import AdaptedUser
from raymeta.serve.user_events.base import StoredEvent, UserRecord
from raymeta.types import TaskState

if TYPE_CHECKING:
    from raymeta.artifact import Artifact


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One item of an answer: its id, its adapted score, and its score for anybody."""

    item_id: str
    score: float
    prior_score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """A user, adapted, and the items that follow, best first."""

    user: AdaptedUser
    items: list[RankedItem]


@dataclass(frozen=True, slots=True)
class _Query:
    user: UserRecord | AdaptedUser
    n: int
    exclude: Sequence[str]
    exclude_seen: bool


class Recommender:
    """Adapts users to one artifact and ranks its catalogue for them.

    Args:
        artifact: as `load_artifact` gives it.
        executor: one thread; all tensor work of the process happens in it.
        max_batch: users in one batched `adapt` at most.

    Raises:
        AdaptationError: the artifact has no finite scores for a user without events.
    """

    def __init__(self, artifact: "Artifact", *, executor: Executor, max_batch: int) -> None:
        self._artifact = artifact
        self._gatherer = Gatherer(self._rank_batch, executor=executor, max_batch=max_batch)
        self._type_index = {name: index for index, name in enumerate(artifact.event_types)}
        support = support_from_events([History.empty()], artifact.view)
        state = _detached(artifact.algorithm.adapt(artifact.meta_params, support))
        self._prior_I = self._score(state)[0]
        if not bool(torch.isfinite(self._prior_I).all()):
            raise AdaptationError(
                f"Artifact {artifact.path} scores a user without events with values that are "
                "not finite.",
                remedy="Train it again; its meta-parameters are unusable.",
            )
        self.prior = AdaptedUser(state, seen=(), num_support=0)
        """A user of whom nothing is known."""

    @property
    def model_version(self) -> str:
        return self._artifact.model_version

    @property
    def event_types(self) -> tuple[str, ...]:
        return self._artifact.event_types

    def num_support(self, record: UserRecord) -> int:
        """How many of the record's events `adapt` would see."""
        support = support_from_events([self._history(record.events)], self._artifact.view)
        return int(support["count"].sum())

    async def rank(
        self,
        user: UserRecord | AdaptedUser,
        *,
        n: int,
        exclude: Sequence[str] = (),
        exclude_seen: bool = True,
    ) -> Ranking:
        """The best `n` items for a user, adapted first unless that was done already.

        A user whom `adapt` or `score` gives values that are not finite is ranked by the prior.
        """
        return await self._gatherer.submit(_Query(user, n, exclude, exclude_seen))

    # --- in the worker thread

    def _rank_batch(self, queries: Sequence[_Query]) -> list[Ranking]:
        users = self._adapt([query.user for query in queries])
        rankings: list[Ranking | None] = [None] * len(queries)
        for rows in _rows_by_shape(users):
            stacked = {
                name: torch.cat([users[row].state[name] for row in rows])
                for name in users[rows[0]].state
            }
            for row, scores_I in zip(rows, self._score(stacked), strict=True):
                rankings[row] = self._rank_one(users[row], scores_I, queries[row])
        return [ranking for ranking in rankings if ranking is not None]

    def _adapt(self, users: Sequence[UserRecord | AdaptedUser]) -> list[AdaptedUser]:
        """Adapts those that are not yet, in one batch."""
        records = [user for user in users if isinstance(user, UserRecord)]
        adapted = iter(self._adapt_records(records) if records else ())
        return [next(adapted) if isinstance(user, UserRecord) else user for user in users]

    def _adapt_records(self, records: Sequence[UserRecord]) -> list[AdaptedUser]:
        histories = [self._history(record.events) for record in records]
        support = support_from_events(histories, self._artifact.view)
        num_support = support["count"].sum(dim=1).long().tolist()
        try:
            states = _detached(self._artifact.algorithm.adapt(self._artifact.meta_params, support))
        except AdaptationError:
            if len(records) > 1:
                raise  # each is then tried alone, and only the one that fails gets the prior
            return [self._unadapted(records[0])]
        return [
            # cloned: a view would keep the whole batch in memory as long as one of its users
            AdaptedUser({name: v[row : row + 1].clone() for name, v in states.items()}, seen, count)
            for row, (seen, count) in enumerate(
                zip(map(self._seen, records), num_support, strict=True)
            )
        ]

    def _score(self, state: TaskState) -> Tensor:
        with torch.no_grad():
            return self._artifact.algorithm.score(self._artifact.meta_params, state)

    def _rank_one(self, user: AdaptedUser, scores_I: Tensor, query: _Query) -> Ranking:
        if not bool(torch.isfinite(scores_I).all()):
            user = AdaptedUser(self.prior.state, user.seen, num_support=0, adapted=False)
            scores_I = self._prior_I
        index_of = self._artifact.catalogue.index_of
        left_out = [index_of[item_id] for item_id in query.exclude if item_id in index_of]
        if query.exclude_seen:
            left_out += user.seen
        if left_out:
            scores_I = scores_I.clone()
            scores_I[left_out] = -torch.inf
        scores, indices = torch.topk(scores_I, min(query.n, len(scores_I)))
        priors = self._prior_I[indices].tolist()
        item_ids = self._artifact.catalogue.item_ids
        items = [
            RankedItem(item_ids[index], score, prior)
            for index, score, prior in zip(indices.tolist(), scores.tolist(), priors, strict=True)
            if score != -np.inf
        ]
        return Ranking(user, items)

    def _unadapted(self, record: UserRecord) -> AdaptedUser:
        return AdaptedUser(self.prior.state, self._seen(record), num_support=0, adapted=False)

    def _seen(self, record: UserRecord) -> tuple[int, ...]:
        index_of = self._artifact.catalogue.index_of
        return tuple(sorted(index_of[i] for i in record.seen_items if i in index_of))

    def _history(self, events: Sequence[StoredEvent]) -> History:
        index_of = self._artifact.catalogue.index_of
        return History(
            item=np.array([index_of.get(e.item_id, -1) for e in events], np.int64),
            event_type=np.array([self._type_index.get(e.event_type, -1) for e in events], np.int64),
            timestamp_ms=np.array([e.timestamp_ms for e in events], np.int64),
            value=np.array([np.nan if e.value is None else e.value for e in events], np.float32),
            visit=np.full(len(events), -1, np.int64),
        )


def _detached(state: TaskState) -> TaskState:
    return {name: value.detach() for name, value in state.items()}


def _rows_by_shape(users: Sequence[AdaptedUser]) -> list[list[int]]:
    """Rows whose states can be stacked: an algorithm's state may be as wide as its support."""
    groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, user in enumerate(users):
        groups[tuple((name, value.shape) for name, value in user.state.items())].append(row)
    return list(groups.values())
