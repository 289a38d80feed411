"""One model at work: from a user's record to adapted state to a list of items, in process.

Concurrent users are adapted in one batched call of the artifact's `adapt`: on the event loop where
the catalogue is small, so that no request waits for a change of threads, and in a worker thread
where it is large, so that the event loop stays free. Leaves where records come from, and keeping
states, to `answers`, and how a list is chosen from scores to `policy`.

Shapes: T users in a batch, I items of the model, C candidates.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raymeta.algorithms.bound import BoundLearner, bind
from raymeta.data.events import History, support_from_events
from raymeta.errors import AdaptationError, NotServedError
from raymeta.models.personal_search import QUERY_MATCH
from raymeta.observability.metrics import Meter
from raymeta.serve.batching import Gatherer
from raymeta.serve.explain import Effect, effects, groups_of
from raymeta.serve.histories import HistoryReader
from raymeta.serve.item_table import ItemFilter, ItemTable
from raymeta.serve.measured import MeasuredLearner
from raymeta.serve.policy import Slot, Wish, choose
from raymeta.serve.states import AdaptedUser, rows_by_shape
from raymeta.serve.user_events.base import UserRecord
from raymeta.types import TaskState

if TYPE_CHECKING:
    from raymeta.artifact import Artifact

MAX_ITEMS_ON_LOOP = 20_000
"""Catalogues up to here are scored on the event loop: about .2 ms a user at 10,000 items of 256
numbers."""


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One item of an answer: its id, its adapted score, its score for anybody, and how it came
    there."""

    item_id: str
    score: float
    prior_score: float
    propensity: float | None = None
    pinned: bool = False
    reasons: tuple[Effect, ...] | None = None
    probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A user, adapted, and the items that follow, best first."""

    user: AdaptedUser
    items: list[RankedItem]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a recommender for one user.

    Attributes:
        wish: how the list is chosen.
        exclude: item ids to leave out; unknown ones are ignored.
        exclude_seen: leave out the items that the user has seen.
        exclude_bought: leave out those with a purchase among the retained events.
        filter: what items must pass.
        candidates: rank these items only, whatever the user has seen; None for all.
        words: what was searched for; the candidates are then ordered by the model for searches.
        explain: measure what moved each item; the user must be given as a record.
        slot: the number of the place that shows the candidates, 0 for the usual one, where the
            model gives probabilities: it orders by the first of them then. None: by its scores.
        now_ms: the moment of the question, which some probabilities depend on.
    """

    wish: Wish
    exclude: Sequence[str] = ()
    exclude_seen: bool = True
    exclude_bought: bool = False
    filter: ItemFilter = ()
    candidates: tuple[int, ...] | None = None
    words: str | None = None
    explain: bool = False
    slot: int | None = None
    now_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Work:
    user: UserRecord | AdaptedUser
    query: Query


class Recommender:
    """Adapts users to one artifact and ranks its items for them.

    Args:
        artifact: as `load_artifact` gives it, with the shop's new items.
        items: what can be asked of its items.
        executor: one thread; the tensor work of large catalogues happens in it.
        max_batch: users in one batched `adapt` at most.
        generator: draws for exploration.
        meter: gets the time of each batch.

    Raises:
        AdaptationError: the artifact has no finite scores for a user without events.
    """

    def __init__(
        self,
        artifact: "Artifact",
        items: ItemTable,
        *,
        executor: Executor,
        max_batch: int,
        generator: np.random.Generator,
        meter: Meter | None = None,
    ) -> None:
        self.artifact = artifact
        self.items = items
        self._generator = generator
        self._gatherer = Gatherer(
            self._rank_batch,
            executor=executor if len(artifact.catalogue) > MAX_ITEMS_ON_LOOP else None,
            max_batch=max_batch,
        )
        self._learner: BoundLearner = bind(artifact.algorithm, artifact.meta_params)
        self._history = HistoryReader(artifact)
        self._vectors_ID = artifact.algorithm.tables().get("item_vectors")
        support = support_from_events([History.empty()], artifact.view)
        state = _detached(self._learner.adapt(support))
        self._prior_I = self._learner.score(state)[0]
        if not bool(torch.isfinite(self._prior_I).all()):
            raise AdaptationError(
                f"Artifact {artifact.path} scores a user without events with values that are "
                "not finite.",
                remedy="Train it again; its meta-parameters are unusable.",
            )
        self.prior = AdaptedUser(state, seen=(), bought=(), num_support=0)
        """A user of whom nothing is known."""
        self._warm_up()
        if meter is not None:  # from here on: what a model does first is no request's
            self._learner = MeasuredLearner(self._learner, meter)

    def _warm_up(self) -> None:
        """Adapts a user with a support of each width, so that no request is the first of its kind;
        here, where a model is loaded, and not on the event loop."""
        if self.artifact.matcher is not None:
            self.artifact.matcher.match("warm up")
        view, num_items = self.artifact.view, len(self.artifact.catalogue)
        if not view.event_types:
            return
        row_type = view.feedback.impression if view.feedback else view.event_types[0]
        for size in (1 << exponent for exponent in range(view.max_events.bit_length())):
            if size > num_items:
                return
            numbers = np.arange(size)
            history = History(
                item=numbers,
                event_type=np.full(size, row_type),
                timestamp_ms=numbers,
                value=np.full(size, np.nan, np.float32),
                visit=np.full(size, -1),
            )
            self._learner.warm_up(support_from_events([history], view))

    @property
    def model_version(self) -> str:
        return self.artifact.model_version

    @property
    def targets(self) -> tuple[str, ...]:
        """What the model gives probabilities of."""
        return tuple(getattr(self.artifact.algorithm, "targets", ()))

    def predictable(self, item_ids: Sequence[str]) -> dict[str, int]:
        """Those of the items that the model has a score or a probability of, with their index."""
        index_of = self.artifact.catalogue.index_of
        found = {item_id: index_of[item_id] for item_id in item_ids if item_id in index_of}
        intent = self.artifact.view.intent
        if intent is None:
            return found
        return {i: index for i, index in found.items() if intent.category_of_item[index] >= 0}

    @property
    def catalogue_version(self) -> int:
        return self.items.version

    def require(self, query: Query) -> None:
        """Refuses what this model cannot do.

        Raises:
            NotServedError: diversity without item vectors.
            DataError: a filter by a feature that no item has.
        """
        self.items.require(query.filter)
        if query.wish.diversity > 0.0 and self._vectors_ID is None:
            raise NotServedError(
                f"The model {self.model_version} has no item vectors to tell items apart by.",
                remedy="Ask without diversity, or serve a model that has them.",
            )

    def adapted_alone(self, record: UserRecord) -> AdaptedUser:
        """The user's state, outside any batch."""
        return self._adapt_records([record])[0]

    async def rank(self, user: UserRecord | AdaptedUser, query: Query) -> Ranking:
        """The items that a query asks for, the user adapted first unless that was done already.

        A user whom `adapt` or `score` gives values that are not finite is ranked by the prior.
        """
        matcher = self.artifact.matcher
        if matcher is not None and query.words is not None and not matcher.has(query.words):
            # a new query is encoded beside the event loop: about 10 ms
            await asyncio.to_thread(matcher.match, query.words)
        return await self._gatherer.submit(_Work(user, query))

    # --- on the event loop or in the worker thread

    def _rank_batch(self, batch: Sequence[_Work]) -> list[Ranking]:
        users = self._adapt([work.user for work in batch])
        rankings: list[Ranking | None] = [None] * len(batch)
        for rows in rows_by_shape(users):
            stacked = {
                name: torch.cat([users[row].state[name] for row in rows])
                for name in users[rows[0]].state
            }
            scores_TI = self._learner.score(stacked)
            is_finite = _all_finite(scores_TI)
            for row, scores_I, finite in zip(rows, scores_TI, is_finite, strict=True):
                user = users[row]
                if not finite:
                    user, scores_I = self._by_prior(user)
                rankings[row] = self._rank_one(user, scores_I, batch[row])
        return [ranking for ranking in rankings if ranking is not None]

    def _adapt(self, users: Sequence[UserRecord | AdaptedUser]) -> list[AdaptedUser]:
        """Adapts those that are not yet, in one batch."""
        records = [user for user in users if isinstance(user, UserRecord)]
        adapted = iter(self._adapt_records(records) if records else ())
        return [next(adapted) if isinstance(user, UserRecord) else user for user in users]

    def _adapt_records(self, records: Sequence[UserRecord]) -> list[AdaptedUser]:
        support = support_from_events([self._history(r) for r in records], self.artifact.view)
        num_support = support["count"].sum(dim=1).long().tolist()
        try:
            states = _detached(self._learner.adapt(support))
        except AdaptationError:
            if len(records) > 1:
                raise  # each is then tried alone, and only the one that fails gets the prior
            return [self._unadapted(records[0])]
        return [
            AdaptedUser(
                # cloned: a view would keep the whole batch in memory as long as one of its users
                {name: v[row : row + 1].clone() for name, v in states.items()},
                seen=self._indices(record.seen_items),
                bought=self._indices(_bought(record)),
                num_support=num_support[row],
            )
            for row, record in enumerate(records)
        ]

    def _by_prior(self, user: AdaptedUser) -> tuple[AdaptedUser, Tensor]:
        """What a user gets whose own scores are not finite."""
        unadapted = replace(user, state=self.prior.state, num_support=0, adapted=False)
        return unadapted, self._prior_I

    def _rank_one(self, user: AdaptedUser, scores_I: Tensor, work: _Work) -> Ranking:
        query = work.query
        prior_I, probabilities = self._prior_I, self._probabilities(user, query)
        if probabilities is not None:
            scores_I = scores_I.clone()
            scores_I[list(query.candidates or ())] = torch.logit(probabilities[:, 0], eps=1e-6)
        if query.words is not None and self.artifact.matcher is not None:
            scores_I, prior_I = self._searched(user, query), self._searched(self.prior, query)
            if not bool(torch.isfinite(scores_I[list(query.candidates or ())]).all()):
                user, scores_I = self._by_prior(user)[0], prior_I
        slots = choose(
            self._allowed(user, scores_I, query),
            query.wish,
            vectors_ID=self._vectors_ID,
            generator=self._generator,
        )
        indices = [slot.index for slot in slots]
        scores, priors = scores_I[indices].tolist(), prior_I[indices].tolist()
        reasons: list[tuple[Effect, ...]] | list[None] = [None] * len(slots)
        if query.explain:
            reasons = self._effects(work.user, indices, query.words)
        ranked = [
            self._ranked(slot, *values)
            for slot, *values in zip(slots, scores, priors, reasons, strict=True)
        ]
        if probabilities is not None:
            named = dict(zip(query.candidates or (), probabilities.tolist(), strict=True))
            ranked = [
                replace(item, probabilities=dict(zip(self.targets, named[index], strict=True)))
                for item, index in zip(ranked, indices, strict=True)
            ]
        return Ranking(user, ranked)

    def _probabilities(self, user: AdaptedUser, query: Query) -> Tensor | None:
        """Of each target for each candidate, `[C, targets]`; None where none are asked for."""
        if query.slot is None or not query.candidates:
            return None
        item = torch.tensor([query.candidates])
        rows = {
            "item": item,
            "value": torch.full(item.shape, float(query.slot)),
            "now_ms": torch.tensor([float(query.now_ms)], dtype=torch.float64),
        }
        return self._learner.predict(user.state, rows)[0]

    def _searched(self, user: AdaptedUser, query: Query) -> Tensor:
        """Scores of a search's candidates, `[I]`; `-inf` at every other item."""
        candidates = torch.tensor([list(query.candidates or ())], dtype=torch.long)
        scores_I = torch.full_like(self._prior_I, -torch.inf)
        state = self._asking(user.state, query.words, candidates[0])
        scores_I[candidates[0]] = self._learner.score(state, candidates)[0]
        return scores_I

    def _asking(self, state: TaskState, words: str | None, candidates: Tensor) -> TaskState:
        """States of users with how the candidates `[C]` answer a search."""
        matcher = self.artifact.matcher
        if words is None or matcher is None:
            return state
        num_users = len(next(iter(state.values())))
        match = matcher.match(words)[candidates]
        return {**state, QUERY_MATCH: match.expand(num_users, -1, -1)}

    def _ranked(
        self, slot: Slot, score: float, prior: float, reasons: tuple[Effect, ...] | None
    ) -> RankedItem:
        item_id = self.artifact.catalogue.item_ids[slot.index]
        return RankedItem(item_id, score, prior, slot.propensity, slot.pinned, reasons)

    def _allowed(self, user: AdaptedUser, scores_I: Tensor, query: Query) -> Tensor:
        """The scores, `-inf` where an item may not be shown."""
        if query.candidates is not None:
            allowed_I = torch.full_like(scores_I, -torch.inf)
            chosen = list(query.candidates)
            allowed_I[chosen] = scores_I[chosen]
            return allowed_I
        index_of = self.artifact.catalogue.index_of
        left_out = [index_of[item_id] for item_id in query.exclude if item_id in index_of]
        left_out += self.items.closed
        if query.exclude_seen:
            left_out += user.seen
        if query.exclude_bought:
            left_out += user.bought
        if query.filter:
            scores_I = scores_I.masked_fill(~self.items.mask(query.filter), -torch.inf)
        elif left_out:
            scores_I = scores_I.clone()
        if left_out:
            scores_I[left_out] = -torch.inf
        return scores_I

    def _effects(
        self, user: UserRecord | AdaptedUser, indices: Sequence[int], words: str | None
    ) -> list[tuple[Effect, ...]]:
        assert isinstance(user, UserRecord)

        def scores_of(records: Sequence[UserRecord]) -> list[list[float]]:
            histories = [self._history(record) for record in records]
            states = self._learner.adapt(support_from_events(histories, self.artifact.view))
            asked = self._asking(_detached(states), words, torch.tensor(indices))
            candidates = torch.tensor(indices).expand(len(records), -1)
            found: list[list[float]] = self._learner.score(asked, candidates).tolist()
            return found

        return effects(user, groups_of(user, self.artifact), scores_of) if indices else []

    def _unadapted(self, record: UserRecord) -> AdaptedUser:
        return AdaptedUser(
            self.prior.state,
            seen=self._indices(record.seen_items),
            bought=self._indices(_bought(record)),
            num_support=0,
            adapted=False,
        )

    def _indices(self, item_ids: frozenset[str]) -> tuple[int, ...]:
        index_of = self.artifact.catalogue.index_of
        return tuple(sorted(index_of[i] for i in item_ids if i in index_of))


def _bought(record: UserRecord) -> frozenset[str]:
    bought = {event.item_id for event in record.events if event.event_type == "purchase"}
    return frozenset(item_id for item_id in bought if item_id is not None)


def _all_finite(scores_TI: Tensor) -> list[bool]:
    """For each user. A sum is not finite where a score is not, at a tenth of the cost of asking."""
    if bool(torch.isfinite(scores_TI.sum(dim=1)).all()):
        return [True] * len(scores_TI)
    return torch.isfinite(scores_TI).all(dim=1).tolist()


def _detached(state: TaskState) -> TaskState:
    return {name: value.detach() for name, value in state.items()}
