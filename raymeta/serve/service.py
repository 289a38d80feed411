"""What the routes do, without HTTP: models by tenant and variant, the store, the state cache.

An event is answered for once the store has it; an answer is made from a version of the user that
includes every event answered for before. Leaves status codes and JSON to `ingress`.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from raymeta.config.serving import LimitsConfig, ModelTable, ServingConfig
from raymeta.data.schema import EVENT_TYPES
from raymeta.errors import ArtifactError, ConfigError, DataError, UnknownUserError
from raymeta.serve.recommender import Recommender
from raymeta.serve.schemas import (
    AppendedEvents,
    Event,
    EventsRequest,
    EventsResponse,
    ReadyResponse,
    RecommendRequest,
    RecommendResponse,
    ScoredItem,
    UserStateResponse,
)
from raymeta.serve.states import StateCache
from raymeta.serve.user_events.base import EventStore, StoredEvent, UserRecord


def wall_clock_ms() -> int:
    """UTC milliseconds now."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class TenantModels:
    """One shop's models: variant -> recommender, and the variant of a request that names none."""

    variants: dict[str, Recommender]
    default_variant: str

    def event_types(self) -> set[str]:
        """What an event may be: the log outlives a model that does not use a common type yet."""
        known = (model.event_types for model in self.variants.values())
        return set(EVENT_TYPES).union(*known)


def load_models(
    table: ModelTable, *, config: ServingConfig, executor: Executor
) -> dict[str, TenantModels]:
    """Loads and checks every artifact of a table, all or none.

    Raises:
        ArtifactError: a folder is not a whole artifact.
        ConfigError: a model adapts to more events than the store retains.
    """
    from raymeta.artifact import load_artifact

    models: dict[str, TenantModels] = {}
    for tenant, entry in table.tenants.items():
        variants: dict[str, Recommender] = {}
        for variant, path in entry.variants.items():
            artifact = load_artifact(Path(path).expanduser())
            if artifact.view.max_events > config.retained_events:
                raise ConfigError(
                    f"Artifact {path} adapts to the last {artifact.view.max_events} events; "
                    f"retained_events is {config.retained_events}.",
                    remedy=f"Set retained_events to {artifact.view.max_events} or more.",
                )
            variants[variant] = Recommender(
                artifact, executor=executor, max_batch=config.max_batch_users
            )
        models[tenant] = TenantModels(variants, entry.default_variant)
    return models


class Service:
    """The routes as methods; one a replica, used from its event loop.

    Args:
        store: where events are kept.
        durable: whether the store outlives the process, for the answers to say.
        limits: what a request may ask for.
        state_cache_bytes: adapted states kept in memory.
        now_ms: the clock, in UTC milliseconds.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        durable: bool,
        limits: LimitsConfig,
        state_cache_bytes: int,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._store = store
        self._durable = durable
        self._limits = limits
        self._states = StateCache(max_bytes=state_cache_bytes)
        self._now_ms = now_ms
        self._models: dict[str, TenantModels] = {}

    def use(self, models: dict[str, TenantModels]) -> None:
        """Answers with `models` from the next request on."""
        self._models = models

    async def add_events(self, request: EventsRequest) -> EventsResponse:
        """Keeps events of one user; returns once they are durable."""
        models = self._tenant(request.tenant)
        events = self._checked(request.events, models)
        result = await self._store.append(request.tenant, request.user_id, events)
        return EventsResponse(
            accepted=result.accepted,
            duplicates=result.duplicates,
            state_version=result.state_version,
            durable=self._durable,
        )

    async def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """The best items for a user, after making the request's events durable."""
        started = time.perf_counter()
        models = self._tenant(request.tenant)
        variant, recommender = _variant(models, request.variant)
        _at_most("n", request.n, self._limits.max_recommendations)
        _at_most("exclude", len(request.exclude), self._limits.max_excluded)
        appended = None
        if request.events:
            events = self._checked(request.events, models)
            result = await self._store.append(request.tenant, request.user_id, events)
            version = result.state_version
            appended = AppendedEvents(accepted=result.accepted, duplicates=result.duplicates)
        else:
            version = await self._store.version(request.tenant, request.user_id)

        # the artifact stands for catalogue and user features too: they change with it only
        key = (request.tenant, request.user_id, recommender.model_version)
        user = recommender.prior if version == 0 else self._states.get((*key, version))
        record: UserRecord | None = None
        if user is None:
            record = await self._store.read(request.tenant, request.user_id)
            version = record.state_version
        ranking = await recommender.rank(
            record if user is None else user,  # type: ignore[arg-type]  # one of them is there
            n=request.n,
            exclude=request.exclude,
            exclude_seen=request.exclude_seen,
        )
        if record is not None:
            self._states.put((*key, version), ranking.user)
        return RecommendResponse(
            recommendation_id=uuid.uuid4().hex,
            items=[
                ScoredItem(id=item.item_id, score=item.score, prior_score=item.prior_score)
                for item in ranking.items
            ],
            model_version=recommender.model_version,
            state_version=version,
            n_support=ranking.user.num_support,
            variant=variant,
            fallback="prior" if ranking.user.num_support == 0 else None,
            events=appended,
            took_ms=round((time.perf_counter() - started) * 1000.0, 3),
        )

    async def user_state(
        self, user_id: str, *, tenant: str, variant: str | None
    ) -> UserStateResponse:
        """What is known of a user.

        Raises:
            UnknownUserError: nothing is.
        """
        name, recommender = _variant(self._tenant(tenant), variant)
        record = await self._store.read(tenant, user_id)
        if record.num_events == 0:
            raise UnknownUserError(
                f"There are no events of user {user_id!r} in tenant {tenant!r}.",
                remedy="Send some to POST /v1/events; POST /v1/recommend answers without.",
            )
        return UserStateResponse(
            user_id=user_id,
            tenant=tenant,
            state_version=record.state_version,
            n_events=record.num_events,
            n_retained=len(record.events),
            n_support=recommender.num_support(record),
            n_seen_items=len(record.seen_items),
            last_event_ms=record.events[-1].timestamp_ms,
            model_version=recommender.model_version,
            variant=name,
        )

    async def ready(self) -> ReadyResponse:
        """Which models answer; raises what keeps requests from being answered."""
        if not self._models:
            raise ArtifactError("No model is loaded.", remedy="Deploy one, then ask again.")
        await self._store.check()
        versions = {
            tenant: {name: model.model_version for name, model in models.variants.items()}
            for tenant, models in self._models.items()
        }
        return ReadyResponse(status="ready", models=versions)

    def _tenant(self, name: str) -> TenantModels:
        if not self._models:
            raise ArtifactError("No model is loaded.", remedy="Deploy one, then ask again.")
        if name not in self._models:
            raise DataError(f"There is no tenant {name!r}.", remedy="Ask for one that is served.")
        return self._models[name]

    def _checked(self, events: Sequence[Event], models: TenantModels) -> list[StoredEvent]:
        """The events as they are stored; refuses all where one cannot be meant."""
        _at_most("events", len(events), self._limits.max_events)
        now = self._now_ms()
        latest = now + 1000 * self._limits.max_future_s
        known_types = models.event_types()
        stored = []
        for index, event in enumerate(events):
            if event.event_type not in known_types:
                raise DataError(
                    f"events.{index}.event_type is {event.event_type!r}, which no model knows.",
                    remedy=f"Use one of: {', '.join(sorted(known_types))}.",
                )
            at = now if event.timestamp is None else event.timestamp
            if at > latest:
                raise DataError(
                    f"events.{index}.timestamp is {at} ms, {(at - now) // 1000} s after the "
                    "server's clock.",
                    remedy="Send UTC milliseconds; leave it out to have the server's time.",
                )
            stored.append(
                StoredEvent(
                    event_id=event.event_id or uuid.uuid4().hex,
                    timestamp_ms=at,
                    **event.model_dump(exclude={"event_id", "timestamp"}),
                )
            )
        return stored


def _variant(models: TenantModels, name: str | None) -> tuple[str, Recommender]:
    name = name or models.default_variant
    if name not in models.variants:
        known = ", ".join(sorted(models.variants))
        raise DataError(f"There is no variant {name!r}.", remedy=f"Use one of: {known}.")
    return name, models.variants[name]


def _at_most(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise DataError(
            f"{field} is {value}; at most {limit} are taken in one request.",
            remedy="Split the request." if field == "events" else "Ask for less.",
        )
