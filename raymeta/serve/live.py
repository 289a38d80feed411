"""What the whole service does now: the numbers that every replica exports, added up when asked.

A request reaches one replica, which knows its own share alone; so what is told here is read from
where the replicas export to (`metric_export.exported`), which has them all. Nothing is counted
twice and nothing more is counted while answering. Leaves names and units to
`observability.metrics`.
"""

import asyncio
import itertools
import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from raymeta.errors import NotServedError
from raymeta.observability import metrics
from raymeta.observability.metrics import Metric
from raymeta.serve.schemas.live import (
    Answered,
    Cache,
    Latency,
    LiveNumbers,
    Numbers,
    RouteLatency,
)

LATELY_S = 120.0

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""(name, labels, those of the replica included) -> value."""

_FRESHNESS = {
    "events durable": (metrics.STORE_SECONDS, ("append", "append_and_read")),
    "users adapted": (metrics.ADAPT_SECONDS, ()),
    "items scored": (metrics.SCORE_SECONDS, ()),
    "item changes taken over": (metrics.CATALOGUE_REFRESHES, ()),
}
"""What lies between an event and the list that reflects it: metric, and values of its first label
that count (all of them where none is named)."""


class Live:
    """Adds up the replicas.

    Args:
        exported: gives the exposition text of each node; None: this process exports nothing.
        clock: in seconds, of any origin.
    """

    def __init__(
        self,
        exported: Callable[[], Sequence[str]] | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exported = exported
        self._clock = clock
        self._earlier: deque[tuple[float, Series]] = deque()

    async def numbers(self, tenant: str) -> LiveNumbers:
        """Since the replicas started, and lately, where this replica was asked before.

        Args:
            tenant: whose answers are told; times are those of all tenants.

        Raises:
            NotServedError: this process exports nothing.
        """
        if self._exported is None:
            raise NotServedError(
                "This process exports no numbers, so there are none of the whole service.",
                remedy="Serve with `raymeta serve` or Ray Serve.",
            )
        now = self._clock()
        series = await asyncio.to_thread(_read, self._exported)
        while self._earlier and now - self._earlier[0][0] > LATELY_S:
            self._earlier.popleft()
        lately = None
        if self._earlier:
            then, before = self._earlier[0]
            lately = _numbers(increase(before, series), tenant, seconds=now - then)
        self._earlier.append((now, series))
        loaded = _values(series, metrics.MODEL_LOADED)
        return LiveNumbers(
            replicas=len({dict(labels).get("WorkerId") for labels in loaded}),
            models_loaded_s=min(loaded.values(), default=None),
            requests_in_progress=int(sum(_values(series, metrics.REQUESTS_IN_PROGRESS).values())),
            cached_states=int(sum(_values(series, metrics.STATES_CACHED).values())),
            state_cache_bytes=int(sum(_values(series, metrics.STATE_CACHE_BYTES).values())),
            # one file, of which each replica of a machine tells
            store_bytes=int(max(_values(series, metrics.STORE_BYTES).values(), default=0)) or None,
            since_start=_numbers(series, tenant, seconds=None),
            lately=lately,
        )


def increase(before: Series, now: Series) -> Series:
    """How much each series grew; one that starts anew with its replica grew from 0."""
    grown = {}
    for key, value in now.items():
        earlier = before.get(key, 0.0)
        grown[key] = value - earlier if value >= earlier else value
    return grown


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value that a share of all values lies below, as `histogram_quantile` of Prometheus has
    it: on a straight line within its bucket. None of no values.

    Args:
        share: 0 to 1.
        buckets: upper bound, the last infinite -> how many values lie at or below it.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    for lower, upper in itertools.pairwise([0.0, *bounds]):
        if buckets[upper] >= wanted:
            if math.isinf(upper):
                return lower  # at least that
            below = buckets.get(lower, 0.0)
            inside = buckets[upper] - below
            return lower + (upper - lower) * ((wanted - below) / inside if inside else 1.0)
    return None


def _read(exported: Callable[[], Sequence[str]]) -> Series:
    """The service's own series; a node's text has those of Ray too, which are many more."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for text in exported():
        lines = [line for line in text.splitlines() if line.startswith("ray_raymeta_")]
        for family in text_string_to_metric_families("\n".join([*lines, ""])):
            for sample in family.samples:
                found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def _values(
    series: Series, metric: Metric, part: str = ""
) -> dict[frozenset[tuple[str, str]], float]:
    """The series of a metric by their labels; of a histogram, of one part of it."""
    name = f"ray_{metric.name}{part or ('_total' if metric.kind == 'counter' else '')}"
    return {labels: value for (found, labels), value in series.items() if found == name}


def _numbers(series: Series, tenant: str, *, seconds: float | None) -> Numbers:
    cache: Counter[str] = Counter()
    for labels, value in _values(series, metrics.STATE_LOOKUPS).items():
        cache[dict(labels)["result"]] += int(value)
    looked = cache.total()
    return Numbers(
        seconds=seconds,
        routes=list(_routes(series)),
        freshness={
            what: _latency(_buckets(series, metric, first))
            for what, (metric, first) in _FRESHNESS.items()
        },
        cache=Cache(
            lookups=looked, hits=cache["hit"], hit_rate=cache["hit"] / looked if looked else None
        ),
        answers=list(_answers(series, tenant)),
    )


def _routes(series: Series) -> Iterator[RouteLatency]:
    """The most asked first."""
    counts = _values(series, metrics.REQUEST_SECONDS, "_count")
    asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for labels, value in counts.items():
        named = dict(labels)
        asked[named["route"]] += int(value)
        if named["status"].startswith("5"):
            failed[named["route"]] += int(value)
    for route, count in asked.most_common():
        if count:
            latency = _latency(_buckets(series, metrics.REQUEST_SECONDS, (route,)))
            yield RouteLatency(route=route, failed=failed[route], **latency.model_dump())


def _answers(series: Series, tenant: str) -> Iterator[Answered]:
    """Lists by variant, and how many of them were made how."""
    by_variant: dict[str, Counter[str]] = {}
    for labels, value in _values(series, metrics.ANSWERS).items():
        named = dict(labels)
        if named["tenant"] == tenant and value:
            made = by_variant.setdefault(named["variant"], Counter())
            made[named["fallback"]] += int(value)
    for variant, made in sorted(by_variant.items()):
        fallbacks = {why: count for why, count in sorted(made.items()) if why != "none"}
        yield Answered(
            variant=variant,
            lists=made.total(),
            fallbacks=fallbacks,
            fallback_rate=sum(fallbacks.values()) / made.total(),
        )


def _buckets(series: Series, metric: Metric, first: Iterable[str]) -> dict[float, float]:
    """A histogram's buckets over all replicas, and over its labels but the first where given."""
    wanted = set(first)
    found: dict[float, float] = defaultdict(float)
    for labels, value in _values(series, metric, "_bucket").items():
        named = dict(labels)
        if not wanted or named[metric.labels[0]] in wanted:
            found[float(named["le"])] += value
    return found


def _latency(buckets: Mapping[float, float]) -> Latency:
    def ms(share: float) -> float | None:
        found = quantile(share, buckets)
        return None if found is None else 1000.0 * found

    return Latency(
        count=int(buckets.get(math.inf, 0.0)), p50_ms=ms(0.5), p95_ms=ms(0.95), p99_ms=ms(0.99)
    )
