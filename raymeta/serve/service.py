"""One replica's service: its parts, wired to one store and one set of models; without HTTP.

An event is answered for once the store has it; an answer is made from a version of the user that
includes every event answered for before. Leaves status codes and JSON to `ingress` and `routes`.
"""

import time
from collections.abc import Callable, Sequence

from raymeta.config.serving import DEFAULT, LimitsConfig, RetentionConfig
from raymeta.observability import metrics
from raymeta.serve.access import Keys
from raymeta.serve.answers import Answers
from raymeta.serve.guard import StoreGuard
from raymeta.serve.items import Items
from raymeta.serve.live import Live
from raymeta.serve.measured import MeasuredStore
from raymeta.serve.models import Maker, Models, TenantModels
from raymeta.serve.online import Online
from raymeta.serve.rate_limits import RateLimit
from raymeta.serve.schemas.operations import ModelFacts, ModelsResponse, ReadyResponse
from raymeta.serve.schemas.page import Households
from raymeta.serve.states import StateCache
from raymeta.serve.user_events.base import EventStore
from raymeta.serve.users import Users
from raymeta.serve.writes import Writes

STATE_MAX_AGE_MS = 3_600_000
"""An adapted state leaves memory after an hour: so long a replica may hold what was erased at
another, out of reach."""


def wall_clock_ms() -> int:
    """UTC milliseconds now."""
    return time.time_ns() // 1_000_000


class Service:
    """The parts behind the routes; one a replica, used from its event loop.

    Args:
        store: where events are kept.
        maker: makes recommenders.
        keys: who may call.
        limits: what a request may ask for.
        retention: what the store keeps.
        state_cache_bytes: adapted states kept in memory.
        rate_share: this replica's part of the rates of the whole service, 0 to 1.
        households: real histories that the page can replay; None without any.
        exported: what all replicas export of their numbers; None where nothing does.
        now_ms: the clock, in UTC milliseconds.
    """

    def __init__(
        self,
        store: EventStore,
        maker: Maker,
        *,
        keys: Keys,
        limits: LimitsConfig,
        retention: RetentionConfig,
        state_cache_bytes: int,
        rate_share: float = 1.0,
        households: Households | None = None,
        exported: Callable[[], Sequence[str]] | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.meter = maker.meter
        self.store = store = MeasuredStore(store, self.meter)
        self.keys = keys
        self.limits = limits
        self.households = households
        self.models = Models(store, maker)
        self.states = StateCache(
            max_bytes=state_cache_bytes,
            max_age_ms=STATE_MAX_AGE_MS,
            now_ms=now_ms,
            meter=self.meter,
        )
        self.key_rate = _rate(
            "requests of this key", limits.requests_per_s_per_key, limits, rate_share
        )
        user_rate = _rate("events of this user", limits.events_per_s_per_user, limits, rate_share)
        self.writes = Writes(store, self.models, limits=limits, user_rate=user_rate, now_ms=now_ms)
        self.answers = Answers(
            store,
            self.models,
            self.writes,
            states=self.states,
            guard=StoreGuard(timeout_s=limits.store_read_timeout_s),
            limits=limits,
            now_ms=now_ms,
            meter=self.meter,
        )
        self.live = Live(exported)
        self.online = Online(store, self.models, self.answers, now_ms=now_ms)
        self.users = Users(
            store,
            self.models,
            states=self.states,
            limits=limits,
            retention=retention,
            now_ms=now_ms,
        )
        self.items = Items(store, self.models, limits=limits)

    def use(self, models: dict[str, TenantModels]) -> None:
        """Answers with `models` from the next request on."""
        self.models.use(models)

    async def ready(self) -> ReadyResponse:
        """Which models answer; raises what keeps requests from being answered."""
        versions = {tenant: models.versions() for tenant, models in self.models.all.items()}
        await self.store.check()
        return ReadyResponse(status="ready", models=versions)

    def describe_models(self, tenant: str = DEFAULT) -> ModelsResponse:
        """The artifacts that answer for a tenant."""
        models = self.models.tenant(tenant)
        facts = {}
        for name, variant in models.variants.items():
            artifact = variant.recommender.artifact
            facts[name] = ModelFacts(
                model_version=artifact.model_version,
                is_default=name == models.default_variant,
                event_types=list(artifact.event_types),
                n_items=len(artifact.catalogue),
                max_events=artifact.view.max_events,
                scenarios=list(variant.scenarios()),
                metrics=dict(artifact.manifest.get("metrics", {})),
            )
        return ModelsResponse(
            tenant=tenant, catalogue_version=models.catalogue_version, variants=facts
        )

    def tell_sizes(self) -> None:
        """Sets what is only worth measuring now and then, and what would be forgotten."""
        self.meter.repeat(metrics.MODEL_INFO)
        self.meter.repeat(metrics.MODEL_LOADED)
        self.meter.set(metrics.STATES_CACHED, value=len(self.states))
        self.meter.set(metrics.STATE_CACHE_BYTES, value=self.states.num_bytes)

    async def maintain(self) -> None:
        """Removes what has outlived its time, here and in the store; to be called now and then."""
        self.states.drop_old()
        await self.store.sweep()


def _rate(what: str, per_s: float | None, limits: LimitsConfig, share: float) -> RateLimit:
    return RateLimit(what, per_s=None if per_s is None else per_s * share, burst_s=limits.burst_s)
