"""Answers: from a request to a list of items, adapted to every event that was answered for.

The user's state is looked up by a key that names all it depends on; where it is not in memory, the
record is read and adapted anew. Of a request that brings events the list is made while the store
flushes them to its disk, and sent once they are durable. While the store does not answer, a list
for anybody is given, and says so. Leaves checking and keeping events to `writes`.
"""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from raymeta.config.serving import LimitsConfig
from raymeta.errors import NotServedError, StoreError
from raymeta.observability import metrics
from raymeta.observability.metrics import Meter
from raymeta.serve.ahead import Ahead
from raymeta.serve.guard import StoreGuard
from raymeta.serve.models import Models, scenarios_of
from raymeta.serve.policy import Wish
from raymeta.serve.queries import recommend_query, scored_item
from raymeta.serve.recommender import Query, Ranking, Recommender
from raymeta.serve.schemas.events import AppendedEvents
from raymeta.serve.schemas.recommend import (
    PredictRequest,
    RankRequest,
    RecommendRequest,
    RecommendResponse,
    SessionRequest,
)
from raymeta.serve.states import AdaptedUser, StateCache, StateKey
from raymeta.serve.traffic import new_list_id
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


Asked = RecommendRequest | RankRequest
QueryOf = Callable[[Recommender], Query]


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
        meter: counts answers.
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
        meter: Meter,
    ) -> None:
        self._store = store
        self._models = models
        self._writes = writes
        self._states = states
        self._guard = guard
        self._limits = limits
        self._now_ms = now_ms
        self._meter = meter

    async def recommend(
        self, request: RecommendRequest, *, idempotency_key: str | None = None
    ) -> RecommendResponse:
        """The best items for a user, after making the request's events durable."""
        started = time.perf_counter()
        at_most("n", request.n, self._limits.max_recommendations)
        at_most("exclude", len(request.exclude), self._limits.max_excluded)

        def query_of(recommender: Recommender) -> Query:
            return recommend_query(request, recommender, temperature=request.exploration)

        response = await self._respond(request, query_of, idempotency_key, started)
        if request.exploration is not None:
            await self._log(request, response)
        return response

    async def rank(
        self, request: RankRequest, *, idempotency_key: str | None = None
    ) -> RecommendResponse:
        """The given items in the order of a user's scores."""
        started = time.perf_counter()
        at_most("items", len(request.items), self._limits.max_candidates)
        _, recommender = self._models.tenant(request.tenant).variant(
            request.variant, request.user_id, scenario=_scenario_of(request)
        )
        require_scenario(recommender, _scenario_of(request))
        given = list(dict.fromkeys(request.items))
        known: Mapping[str, int] = {}

        def query_of(recommender: Recommender) -> Query:
            nonlocal known
            known = recommender.artifact.catalogue.index_of
            return _candidates_query(given, known, request, recommender)

        response = await self._respond(request, query_of, idempotency_key, started)
        unknown = [item_id for item_id in given if item_id not in known]
        return response.model_copy(update={"unknown_items": unknown})

    async def predict(self, request: PredictRequest) -> RecommendResponse:
        """Probabilities of what a user will do with the given items, the likeliest first."""
        started = time.perf_counter()
        at_most("items", len(request.items), self._limits.max_candidates)
        asker = await self._found_or_anybody(request)
        require_scenario(asker.recommender, _scenario_of(request))
        require_targets(asker.recommender, request.targets)
        given = list(dict.fromkeys(request.items))
        known = asker.recommender.predictable(given)
        query = _candidates_query(given, known, request, asker.recommender)
        query = replace(query, now_ms=self._now_ms())
        ranking = await self._ranked(asker, query)
        response = self._response(request, asker, ranking, started)
        unknown = [item_id for item_id in given if item_id not in known]
        items = [
            item.model_copy(
                update={"probabilities": {t: item.probabilities[t] for t in request.targets}}
            )
            for item in response.items
            if item.probabilities is not None
        ]
        return response.model_copy(update={"unknown_items": unknown, "items": items})

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
        ranking = await self._ranked(asker, recommend_query(request, recommender))
        return self._response(request, asker, ranking, started)

    # --- who asks

    async def _respond(
        self, request: Asked, query_of: QueryOf, idempotency_key: str | None, started: float
    ) -> RecommendResponse:
        if request.events:
            asker, ranking = await self._after_append(request, query_of, idempotency_key)
        else:
            asker = await self._found_or_anybody(request)
            ranking = await self._ranked(asker, query_of(asker.recommender))
        return self._response(request, asker, ranking, started)

    async def _after_append(
        self, request: Asked, query_of: QueryOf, idempotency_key: str | None
    ) -> tuple[_Asker, Ranking]:
        """Keeps the request's events; the list is begun while the store flushes them."""
        models = self._models.tenant(request.tenant)
        variant, recommender = models.variant(
            request.variant, request.user_id, scenario=_scenario_of(request)
        )

        def begin(record: UserRecord) -> Coroutine[Any, Any, Ranking] | None:
            if models.catalogue_version < record.version.catalogue:
                return None
            asker = _Asker(variant, recommender, record, record.version)
            return self._ranked_by(asker, query_of)

        ahead = Ahead(begin)
        try:
            result, record = await self._writes.append_and_read(
                request.tenant,
                request.user_id,
                request.events,
                key=self._writes.key_of(request, idempotency_key),
                ahead=ahead,
            )
        except BaseException:
            ahead.drop()
            raise
        ranking = ahead.of(record)
        if ranking is None:
            ahead.drop()
            variant, recommender = await self._current(request, record.version)
        appended = AppendedEvents(
            accepted=result.accepted, duplicates=result.duplicates, erased=result.erased
        )
        key = _state_key(request.tenant, request.user_id, recommender, record.version)
        asker = _Asker(variant, recommender, record, record.version, key, appended=appended)
        return asker, await (ranking or self._ranked_by(asker, query_of))

    async def _found_or_anybody(self, request: Asked | PredictRequest) -> _Asker:
        """The user, or, while the store does not answer, nobody in particular."""
        try:
            return await self._found(request)
        except StoreError:
            variant, recommender = self._models.tenant(request.tenant).variant(
                request.variant, request.user_id, scenario=_scenario_of(request)
            )
            return _Asker(variant, recommender, recommender.prior, UserVersion(), store_failed=True)

    async def _found(self, request: Asked | PredictRequest) -> _Asker:
        """The user's state from memory, or its record."""
        tenant, user_id = request.tenant, request.user_id
        if not request.explain:
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
        self, request: Asked | PredictRequest, version: UserVersion
    ) -> tuple[str, Recommender]:
        """Who answers, with the catalogue that the store has."""
        models = self._models.tenant(request.tenant)
        if models.catalogue_version < version.catalogue:
            models = await self._models.refresh(request.tenant, catalogue=version.catalogue)
        return models.variant(request.variant, request.user_id, scenario=_scenario_of(request))

    # --- the answer

    async def _ranked_by(self, asker: _Asker, query_of: QueryOf) -> Ranking:
        return await self._ranked(asker, query_of(asker.recommender))

    async def _ranked(self, asker: _Asker, query: Query) -> Ranking:
        asker.recommender.require(query)
        if isinstance(asker.user, AdaptedUser) and query.explain:
            query = replace(query, explain=False)  # nobody in particular: no event moved anything
        return await asker.recommender.rank(asker.user, query)

    def _response(
        self,
        request: Asked | PredictRequest | SessionRequest,
        asker: _Asker,
        ranking: Ranking,
        started: float,
    ) -> RecommendResponse:
        recommender = asker.recommender
        if asker.key is not None:
            self._states.put(asker.key, ranking.user)
            if ranking.user is not asker.user:  # adapted just now
                self._meter.observe(metrics.STATE_BYTES, ranking.user.state_bytes())
        fallback: Literal["prior", "store"] | None = None
        if asker.store_failed:
            fallback = "store"
        elif ranking.user.num_support == 0:
            fallback = "prior"
        why = fallback if ranking.user.adapted else "adaptation"
        self._meter.add(metrics.ANSWERS, request.tenant, asker.variant, why or "none")
        return RecommendResponse(
            recommendation_id=new_list_id(asker.variant, _scenario_of(request)),
            items=[scored_item(item) for item in ranking.items],
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


def require_targets(recommender: Recommender, targets: Sequence[str]) -> None:
    """Refuses targets that a model gives no probabilities of.

    Raises:
        NotServedError: naming the first.
    """
    if missing := [target for target in targets if target not in recommender.targets]:
        raise NotServedError(
            f"The model {recommender.model_version} gives no probability of {missing[0]!r}; it "
            f"has {', '.join(recommender.targets) or 'none'}.",
            remedy="Ask for those, or serve a model that was trained for it.",
        )


def _candidates_query(
    given: Sequence[str],
    known: Mapping[str, int],
    request: RankRequest | PredictRequest,
    recommender: Recommender,
) -> Query:
    """All given items that the model knows, in a slot where it gives probabilities."""
    candidates = tuple(known[item_id] for item_id in given if item_id in known)
    slot = (request.slot or 0) if recommender.targets else None
    return Query(
        Wish(n=len(candidates)),
        candidates=candidates,
        words=getattr(request, "query", None),
        explain=request.explain,
        slot=slot,
    )


def _scenario_of(request: Asked | PredictRequest | SessionRequest) -> str:
    """What an answer is for; a `query` makes it `search`."""
    if isinstance(request, PredictRequest):
        return "intent" if "purchase_intent" in request.targets else "ads"
    if isinstance(request, RankRequest):
        return "search" if request.query is not None else request.scenario
    return "recommend"


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
    """What a recommender's artifact was trained for."""
    return scenarios_of(recommender.artifact)


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
