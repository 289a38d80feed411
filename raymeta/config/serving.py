"""What a service runs: which artifact answers for whom, where events live, and every limit.

`tenants` is the part that may change while the service runs; the rest is fixed when it starts.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from raymeta.config.base import StrictModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A tenant's or a variant's name."""

DEFAULT = "default"
"""The tenant and the variant of a service that has one of each."""


ScenarioFolders = Annotated[dict[Name, str], Field(min_length=1)]
"""Scenario -> the folder of an artifact that was trained for it."""


class TenantConfig(StrictModel):
    """One shop: its variants, and which one answers when a request names none."""

    variants: Annotated[dict[Name, str | ScenarioFolders], Field(min_length=1)]
    """Variant name -> artifact folder, or, for several scenarios, scenario -> artifact folder, e.g.
    `{recommend: runs/shop/artifact, ads: runs/ads/artifact}`; every replica must be able to read
    each."""

    default_variant: Name = DEFAULT
    """The variant of a request that names none, where `traffic` says nothing else."""

    traffic: dict[Name, NonNegativeFloat] = Field(default_factory=dict)
    """Variant name -> its share of the users, in any unit, e.g. `{default: 95, canary: 5}`: who
    names no variant is dealt one by a hash of the user id. Empty: all to `default_variant`."""

    salt: Name = "traffic"
    """Dealt by anew where this is changed, as it should be for each experiment."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        known = ", ".join(sorted(self.variants))
        if self.default_variant not in self.variants:
            raise ValueError(f"default_variant {self.default_variant!r} is none of: {known}")
        if unknown := sorted(set(self.traffic) - set(self.variants)):
            raise ValueError(f"traffic names {unknown[0]!r}, which is none of: {known}")
        if self.traffic and sum(self.traffic.values()) == 0:
            raise ValueError("the shares of traffic are all 0: give one variant a share")
        return self


def folders_of(variant: str | ScenarioFolders) -> ScenarioFolders:
    """The artifact folders of a variant by scenario, its main one first; `""` where it has one."""
    if isinstance(variant, str):
        return {"": variant}
    main = "recommend" if "recommend" in variant else next(iter(variant))
    return {main: variant[main], **variant}


class ModelTable(StrictModel):
    """Which artifact answers: the `user_config` of the deployment, changed without a restart."""

    tenants: Annotated[dict[Name, TenantConfig], Field(min_length=1)]
    """Tenant name -> its variants."""


class SqliteStoreConfig(StrictModel):
    """An embedded database on this machine's disk, shared by the replicas of this machine."""

    kind: Literal["sqlite"] = "sqlite"
    """The store's kind."""

    path: str = "raymeta-events.sqlite"
    """The database file; made where missing. Relative to where the service is started."""

    busy_timeout_s: PositiveFloat = 5.0
    """How long a write waits for another replica's before the request is refused with 503."""


class RedisStoreConfig(StrictModel):
    """A Redis server, shared by the replicas of any number of machines.

    Its `appendonly yes` and `appendfsync always` make acknowledged events outlive a crash.
    """

    kind: Literal["redis"] = "redis"
    """The store's kind."""

    url: str | None = None
    """E.g. `redis://host:6379/0`. Not given: the environment variable RAYMETA_REDIS_URL of the
    replicas, which keeps a password out of what Serve shows."""

    prefix: Name = "raymeta"
    """Of every key."""

    timeout_s: PositiveFloat = 2.0
    """How long connecting and each answer may take."""


class PostgresStoreConfig(StrictModel):
    """A PostgreSQL database, shared by the replicas of any number of machines."""

    kind: Literal["postgres"] = "postgres"
    """The store's kind."""

    url: str | None = None
    """E.g. `postgresql://host/shop`. Not given: the environment variable RAYMETA_POSTGRES_URL of
    the replicas, which keeps a password out of what Serve shows."""

    db_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = "raymeta"
    """Holds the tables; made where missing."""

    timeout_s: PositiveFloat = 2.0
    """How long connecting and each statement may take."""


class MemoryStoreConfig(StrictModel):
    """Events in the memory of one replica: lost when it ends. For trials and tests."""

    kind: Literal["memory"] = "memory"
    """The store's kind."""


StoreConfig = Annotated[
    SqliteStoreConfig | RedisStoreConfig | PostgresStoreConfig | MemoryStoreConfig,
    Field(discriminator="kind"),
]


class RetentionConfig(StrictModel):
    """What a store keeps, and for how long."""

    events: PositiveInt = 4096
    """Events kept a user; older ones go, while what the user has seen stays known."""

    user_days: PositiveInt | None = None
    """A user without an event for so many days is forgotten; not given: never."""

    event_id_days: PositiveInt = 90
    """An event sent again within so many days counts once; a tombstone stands as long."""

    idempotency_days: PositiveInt = 2
    """A request sent again with its Idempotency-Key within so many days gets its first answer."""

    @model_validator(mode="after")
    def _tombstones_outlive_ids(self) -> Self:
        if self.user_days is not None and self.user_days < self.event_id_days:
            raise ValueError(
                f"user_days {self.user_days} is less than event_id_days {self.event_id_days}: an "
                "erased user's late events could come back"
            )
        return self


class AccessConfig(StrictModel):
    """Who may call."""

    keys_file: str
    """YAML file of keys, each with name, sha256, scopes and tenants; every replica reads it."""


class CompatConfig(StrictModel):
    """Routes in the shapes of other products, for callers that are not to change."""

    products: tuple[Literal["gorse", "metarank", "personalize"], ...] = ()
    """Whose routes are added beside `/v1`. None unless named: their paths, such as `/events` and
    `/feedback`, have no prefix, so that a shop's gateway may have them already, and each route is
    one more way in."""

    event_types: dict[str, str] = Field(default_factory=dict)
    """Their name of a type of event -> ours, e.g. `star: purchase`; others are taken as they are,
    and refused where no model knows them."""

    category_feature: str = "category"
    """The feature of an item that Gorse's categories are."""


class LimitsConfig(StrictModel):
    """What a request may ask for; more is refused with 413, 422 or 429."""

    max_body_bytes: PositiveInt = 1 << 20
    """Bytes of a request body."""

    max_events: PositiveInt = 500
    """Events a request."""

    max_recommendations: PositiveInt = 500
    """Items an answer (`n`)."""

    max_candidates: PositiveInt = 1000
    """Items given to be ranked."""

    max_excluded: PositiveInt = 10_000
    """Ids in `exclude`."""

    max_items: PositiveInt = 1000
    """Items in one change of the catalogue."""

    max_feature_bytes: PositiveInt = 16 << 10
    """Features of one user or item, as JSON."""

    max_future_s: NonNegativeInt = 86_400
    """How far an event's timestamp may lie ahead of the server's clock."""

    deadline_s: PositiveFloat = 5.0
    """A request that takes longer is answered with 408."""

    store_read_timeout_s: PositiveFloat = 1.0
    """A recommendation waits so long for the store, and then answers for anybody."""

    requests_per_s_per_key: PositiveFloat | None = None
    """Requests a second of one API key, over all replicas: each allows its share."""

    events_per_s_per_user: PositiveFloat | None = None
    """Events a second of one user, over all replicas: each allows its share."""

    burst_s: PositiveFloat = 10.0
    """A rate may be used up to so many seconds at once."""


class LogConfig(StrictModel):
    """What replicas write to their logs, which Ray keeps under `logs/serve` of its session."""

    level: Literal["debug", "info", "warning", "error"] = "warning"
    """The least severe line that is written; `info` has one for every request."""

    form: Literal["text", "json"] = "json"
    """How a line is written; `json`: one object a line."""


class TracingConfig(StrictModel):
    """Spans of requests, sent to an OpenTelemetry collector: `pip install 'raymeta[otel]'`."""

    endpoint: str | None = None
    """OTLP over HTTP, e.g. `http://collector:4318/v1/traces`. Not given: what the environment
    variable OTEL_EXPORTER_OTLP_ENDPOINT of the replicas says."""

    sample_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """The share of requests that are traced, unless their `traceparent` header decides."""


class ReplicaConfig(StrictModel):
    """The processes that answer. Each has every artifact in memory and adapts by itself."""

    num_replicas: PositiveInt = 1
    """Processes behind the endpoint."""

    num_cpus: PositiveFloat = 0.5
    """CPUs that Ray sets aside for each; logical, so that a service fits beside other work."""

    max_ongoing_requests: PositiveInt = 64
    """Requests a replica works on at once; their adaptations are done as one batch."""

    max_queued_requests: PositiveInt = 256
    """Requests that wait beyond those; more are refused with 503 and Retry-After."""

    request_timeout_s: PositiveFloat = 10.0
    """A request that takes longer is answered with 408."""

    torch_threads: PositiveInt = 1
    """Threads of a replica's tensor operations."""


class ServingConfig(StrictModel):
    """One service, complete: the `args` of a Serve application."""

    tenants: dict[Name, TenantConfig] = Field(default_factory=dict)
    """Tenant name -> its variants. May be left to the deployment's `user_config`, which wins."""

    store: StoreConfig = SqliteStoreConfig()
    """Where events are kept."""

    retention: RetentionConfig = RetentionConfig()
    """What the store keeps."""

    access: AccessConfig | None = None
    """Who may call; not given: everybody, which is refused on an address that others reach."""

    state_cache_bytes: NonNegativeInt = 256 << 20
    """Adapted states that a replica keeps in memory; 0 adapts at each request."""

    max_batch_users: PositiveInt = 64
    """Users adapted in one batch at most."""

    limits: LimitsConfig = LimitsConfig()
    """What a request may ask for."""

    compat: CompatConfig = CompatConfig()
    """Which other products' requests are understood."""

    replicas: ReplicaConfig = ReplicaConfig()
    """The processes that answer."""

    log: LogConfig = LogConfig()
    """What they write."""

    tracing: TracingConfig | None = None
    """Where they send spans; not given: nowhere, at no cost."""

    households_file: str | None = None
    """Real histories that the page at `/` replays, as `raymeta serve --playground` writes them. Not
    given: none."""

    last_good_file: str | None = None
    """Where replicas note the models that they could load, so that one that restarts while a bad
    artifact is declared answers with those. Not given: beside the SQLite file, otherwise none."""

    @model_validator(mode="after")
    def _memory_is_not_shared(self) -> Self:
        if self.store.kind == "memory" and self.replicas.num_replicas > 1:
            raise ValueError(
                f"store kind 'memory' belongs to one replica, num_replicas is "
                f"{self.replicas.num_replicas}; use kind 'sqlite'"
            )
        return self

    def fixed_settings(self) -> dict[str, Any]:
        """All but `tenants`: what a replica is started with, as plain values."""
        return self.model_dump(mode="json", exclude={"tenants"})

    def model_table(self) -> dict[str, Any]:
        """`tenants` alone, as plain values: what `user_config` carries."""
        return self.model_dump(mode="json", include={"tenants"})
