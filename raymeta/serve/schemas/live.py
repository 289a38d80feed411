"""What the operator's page is told of the service as it is now, all replicas together."""

from raymeta.serve.schemas.base import Message


class Latency(Message):
    """How long something took; between the bounds of a histogram's buckets on a straight line."""

    count: int
    """How often."""

    p50_ms: float | None
    """Half of them took no longer; null of none."""

    p95_ms: float | None
    """95% took no longer."""

    p99_ms: float | None
    """99% took no longer."""


class RouteLatency(Latency):
    """The requests of one route, from arrival at a replica to the end of the answer."""

    route: str
    """Its pattern."""

    failed: int
    """Answered with 500 or above."""


class Cache(Message):
    """Looks for adapted states in memory."""

    lookups: int
    """How many."""

    hits: int
    """How many found one."""

    hit_rate: float | None
    """Their share; null of none."""


class Answered(Message):
    """The lists of one variant."""

    variant: str
    """Who answered."""

    lists: int
    """How many."""

    fallbacks: dict[str, int]
    """Those that are for anybody, by why: `prior`, nothing to adapt to; `store`, it did not
    answer; `adaptation`, it failed."""

    fallback_rate: float
    """Their share."""


class Numbers(Message):
    """What was counted in a time."""

    seconds: float | None
    """How long; null: since each replica started."""

    routes: list[RouteLatency]
    """The most asked first."""

    freshness: dict[str, Latency]
    """What lies between an event and the list that reflects it."""

    cache: Cache
    """Of adapted states."""

    answers: list[Answered]
    """By variant."""


class LiveNumbers(Message):
    """The service now. Replicas hand their numbers over every ten seconds."""

    replicas: int
    """That tell of themselves."""

    models_loaded_s: float | None
    """When the replica that loaded its models first did so, Unix time in seconds."""

    requests_in_progress: int
    """In all replicas."""

    cached_states: int
    """Adapted users in memory, in all replicas."""

    state_cache_bytes: int
    """Of those."""

    store_bytes: int | None
    """Of the embedded store's file; null of another."""

    since_start: Numbers
    """Since each replica started."""

    lately: Numbers | None
    """In the last two minutes at most, from when the answering replica was asked before; null
    where it was not."""
