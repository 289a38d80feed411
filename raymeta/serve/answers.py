"""Answers: from a request to a list of items, adapted to every event that was answered for.

The user's state is looked up by a key that names all it depends on; where it is not in memory, the
record is read and adapted anew. While the store does not answer, a list for anybody is given, and
says so. Leaves checking and keeping events to `writes`.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raymeta.config.serving import LimitsConfig
from raymeta.errors import DataError, NotServedError, StoreError
from raymeta.serve.guard import StoreGuard
from raymeta.serve.item_table import Condition, ItemFilter
from raymeta.serve.models import Models
from raymeta.serve.policy import Wish
from raymeta.serve.recommender import Query, RankedItem, Recommender
from raymeta.serve.schemas.events import AppendedEvents, Event
from raymeta.serve.schemas.recommend import (
    Filter,
    Pin,
    PredictRequest,
    Range,
    RankRequest,
    Reason,
    RecommendRequest,
    RecommendResponse,
    ScoredItem,
    SessionRequest,
)
from raymeta.serve.states import AdaptedUser, StateCache, StateKey
from raymeta.serve.user_events.base import (
    EventStore,
    LoggedRanking,
    UserRecord,
    UserVersion,
)
from raymeta.serve.writes import Writes, at_most


@dataclass(frozen=True, slots=True)
class _Asker:
    """A user as an answer is made for: what of the user is at hand, and who answers."""

    variant: str
    recommender: Recommender
    user: UserRecord | AdaptedUser
    version: UserVersion
    key: StateKey | None = None
    store_failed: bool = False
    appended: AppendedEvents | None = None


class Answers:
    """Makes lists of items.

    Args:
        store: where records are.
        models: who answers.
        writes: takes the events that a request brings.
        states: adapted users in memory.
        guard: bounds reads of the store.
        limits: what may be asked for.
        now_ms: the clock, in UTC milliseconds.
    """

    def __init__(
        self,
        store: EventStore,
        models: Models,
        writes: Writes,
        *,
        states: StateCache,
        guard: StoreGuard,
        limits: LimitsConfig,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._models = models
        self._writes = writes
        self._states = states
        self._guard = guard
        self._limits = limits
        self._now_ms = now_ms

    async def recommend(
        self, request: RecommendRequest, *, idempotency_key: str | None = None
    ) -> RecommendResponse:
        """The best items for a user, after making the request's events durable."""
        started = time.perf_counter()
        at_most("n", request.n, self._limits.max_recommendations)
        at_most("exclude", len(request.exclude), self._limits.max_excluded)
        asker = await self._asker(request, idempotency_key=idempotency_key)
        query = _recommend_query(request, asker.recommender, temperature=request.exploration)
        response = await self._answer(asker, query, started)
        if request.exploration is not None:
            await self._log(request, response)
        return response

    async def rank(
        self, request: RankRequest, *, idempotency_key: str | None = None
    ) -> RecommendResponse:
        """The given items in the order of a user's scores."""
        started = time.perf_counter()
        at_most("items", len(request.items), self._limits.max_candidates)
        _, recommender = self._models.tenant(request.tenant).variant(request.variant)
        require_scenario(recommender, "search" if request.query is not None else request.scenario)
        asker = await self._asker(request, idempotency_key=idempotency_key)
        index_of = asker.recommender.artifact.catalogue.index_of
        given = list(dict.fromkeys(request.items))
        known = tuple(index_of[item_id] for item_id in given if item_id in index_of)
        query = Query(Wish(n=len(known)), candidates=known, explain=request.explain)
        response = await self._answer(asker, query, started)
        unknown = [item_id for item_id in given if item_id not in index_of]
        return response.model_copy(update={"unknown_items": unknown})

    async def predict(self, request: PredictRequest) -> RecommendResponse:
        """Probabilities of what a user will do; refused, since no head gives any yet."""
        _, recommender = self._models.tenant(request.tenant).variant(request.variant)
        scenario = {"purchase_intent": "intent"}.get(request.targets[0], "ads")
        require_scenario(recommender, scenario)
        raise AssertionError("an artifact with such a head has a route to it")

    async def session(self, request: SessionRequest) -> RecommendResponse:
        """The best items for a visitor of whom these events are all that is known."""
        started = time.perf_counter()
        at_most("n", request.n, self._limits.max_recommendations)
        at_most("exclude", len(request.exclude), self._limits.max_excluded)
        models = self._models.tenant(request.tenant)
        variant, recommender = models.variant(request.variant)
        events = self._writes.checked(request.events, models, now_ms=self._now_ms())
        # as a store would give it back
        in_order = tuple(sorted(events, key=lambda event: event.order()))
        seen = frozenset(e.item_id for e in events if e.marks_seen() and e.item_id is not None)
        record = UserRecord(num_events=len(events), events=in_order, seen_items=seen)
        asker = _Asker(variant, recommender, record, UserVersion())
        return await self._answer(asker, _recommend_query(request, recommender), started)

    # --- who asks

    async def _asker(
        self, request: RecommendRequest | RankRequest, *, idempotency_key: str | None
    ) -> _Asker:
        """Keeps the request's events, then finds the user, adapted if possible."""
        appended = None
        if request.events:
            appended = await self._append(request, request.events, idempotency_key)
        try:
            return replace(await self._find(request, fresh=appended is not None), appended=appended)
        except StoreError:
            if appended is not None:
                raise  # an answer without the events that were just kept would contradict itself
            variant, recommender = self._models.tenant(request.tenant).variant(request.variant)
            return _Asker(variant, recommender, recommender.prior, UserVersion(), store_failed=True)

    async def _append(
        self,
        request: RecommendRequest | RankRequest,
        events: Sequence[Event],
        idempotency_key: str | None,
    ) -> AppendedEvents:
        result = await self._writes.append(
            request.tenant,
            request.user_id,
            events,
            key=self._writes.key_of(request, idempotency_key),
        )
        return AppendedEvents(
            accepted=result.accepted, duplicates=result.duplicates, erased=result.erased
        )

    async def _find(self, request: RecommendRequest | RankRequest, *, fresh: bool) -> _Asker:
        """The user's state from memory, or its record.

        Args:
            fresh: events were just added, so that memory cannot have the state.
        """
        tenant, user_id = request.tenant, request.user_id
        if not fresh and not request.explain:
            version = await self._guard.read(lambda: self._store.version(tenant, user_id))
            variant, recommender = await self._current(request, version)
            key = _state_key(tenant, user_id, recommender, version)
            user = recommender.prior if version.number == 0 else self._states.get(key)
            if user is not None:
                return _Asker(variant, recommender, user, version)
        record = await self._guard.read(lambda: self._store.read(tenant, user_id))
        variant, recommender = await self._current(request, record.version)
        key = _state_key(tenant, user_id, recommender, record.version)
        return _Asker(variant, recommender, record, record.version, key)

    async def _current(
        self, request: RecommendRequest | RankRequest, version: UserVersion
    ) -> tuple[str, Recommender]:
        """Who answers, with the catalogue that the store has."""
        models = self._models.tenant(request.tenant)
        if models.catalogue_version < version.catalogue:
            models = await self._models.refresh(request.tenant, catalogue=version.catalogue)
        return models.variant(request.variant)

    # --- the answer

    async def _answer(self, asker: _Asker, query: Query, started: float) -> RecommendResponse:
        recommender = asker.recommender
        recommender.require(query)
        if isinstance(asker.user, AdaptedUser) and query.explain:
            query = replace(query, explain=False)  # nobody in particular: no event moved anything
        ranking = await recommender.rank(asker.user, query)
        if asker.key is not None:
            self._states.put(asker.key, ranking.user)
        fallback: Literal["prior", "store"] | None = None
        if asker.store_failed:
            fallback = "store"
        elif ranking.user.num_support == 0:
            fallback = "prior"
        return RecommendResponse(
            recommendation_id=uuid.uuid4().hex,
            items=[_scored(item) for item in ranking.items],
            model_version=recommender.model_version,
            catalogue_version=recommender.catalogue_version,
            state_version=asker.version.number,
            n_support=ranking.user.num_support,
            variant=asker.variant,
            fallback=fallback,
            events=asker.appended,
            took_ms=round((time.perf_counter() - started) * 1000.0, 3),
        )

    async def _log(self, request: RecommendRequest, response: RecommendResponse) -> None:
        """Keeps what was drawn and with which propensities, before it is shown."""
        slots = tuple((item.id, item.propensity or 0.0) for item in response.items)
        ranking = LoggedRanking(
            response.recommendation_id, self._now_ms(), response.model_version, slots
        )
        await self._store.log_ranking(request.tenant, request.user_id, ranking)


def require_scenario(recommender: Recommender, scenario: str) -> None:
    """Refuses a scenario that the artifact was not trained for.

    Raises:
        NotServedError: saying what it was trained for.
    """
    has = scenarios(recommender)
    if scenario not in has:
        raise NotServedError(
            f"The model {recommender.model_version} was not trained for the scenario "
            f"{scenario!r}; it has {', '.join(has)}.",
            remedy=f"Train an artifact with a head for {scenario!r}, and serve it as a variant.",
        )


def scenarios(recommender: Recommender) -> tuple[str, ...]:
    """What an artifact was trained for; each ranks items out of the whole catalogue."""
    return tuple(recommender.artifact.manifest.get("scenarios", ("recommend",)))


def _state_key(
    tenant: str, user_id: str, recommender: Recommender, version: UserVersion
) -> StateKey:
    return StateKey(
        tenant,
        user_id,
        recommender.model_version,
        recommender.catalogue_version,
        version.number,
        version.epoch_ms,
    )


def _recommend_query(
    request: RecommendRequest | SessionRequest,
    recommender: Recommender,
    *,
    temperature: float | None = None,
) -> Query:
    return Query(
        wish=Wish(
            n=request.n,
            pins=_pins(request.pins, recommender),
            diversity=request.diversity,
            temperature=temperature,
        ),
        exclude=request.exclude,
        exclude_seen=request.exclude_seen,
        exclude_bought=request.exclude_bought,
        filter=_conditions(request.filter),
        explain=request.explain,
    )


def _pins(pins: Sequence[Pin], recommender: Recommender) -> tuple[tuple[int, int], ...]:
    index_of = recommender.artifact.catalogue.index_of
    for number, pin in enumerate(pins):
        if pin.item_id not in index_of:
            raise DataError(
                f"pins.{number}.item_id is {pin.item_id!r}, which the model does not know.",
                remedy="Pin an item of the catalogue, or add it with PUT /v1/items/ID.",
            )
    return tuple((pin.position, index_of[pin.item_id]) for pin in pins)


def _conditions(wanted: Filter) -> ItemFilter:
    conditions = []
    for feature, value in sorted(wanted.items()):
        if isinstance(value, Range):
            conditions.append(Condition(feature, at_least=value.min, at_most=value.max))
        else:
            values = value if isinstance(value, list) else [value]
            conditions.append(Condition(feature, any_of=tuple(values)))
    return tuple(conditions)


def _scored(item: RankedItem) -> ScoredItem:
    return ScoredItem(
        id=item.item_id,
        score=item.score,
        prior_score=item.prior_score,
        propensity=item.propensity,
        pinned=True if item.pinned else None,
        reasons=None
        if item.reasons is None
        else [
            Reason(item_id=r.item_id, event_type=r.event_type, effect=r.effect)
            for r in item.reasons
        ],
    )
