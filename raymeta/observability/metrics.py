"""What the service counts: every metric by name, unit and labels, and the meter that holds them.

A name ends in its unit (`_seconds`, `_bytes`, `_users`). The meter's own numbers are what this
process's page shows; a sink hands each record on to whatever is scraped. Leaves which system that
is to `serve.metric_export`, and what is worth counting to the code that counts.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
"""Values, in the order of a metric's label names."""

SECONDS = tuple(
    ms / 1000.0
    for ms in (0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500)
)
"""Dense where a request lasts: 1 to 20 ms."""

_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)
_BYTES = (64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 65536.0, 262144.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: with its unit; a counter's has no `_total`, which the exporter adds.
        kind: counter, gauge or histogram.
        help: what it counts, and in which unit.
        labels: names; their values are few, and never of a user or an item.
        buckets: upper bounds, ascending, of a histogram.
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()

    def series(self) -> tuple[str, ...]:
        """The names that Prometheus has for it, scraped from Ray's metrics port."""
        name = f"ray_{self.name}"
        if self.kind == "counter":
            return (f"{name}_total",)
        if self.kind == "histogram":
            return tuple(f"{name}_{part}" for part in ("bucket", "count", "sum"))
        return (name,)


REQUEST_SECONDS = Metric(
    "raymeta_request_seconds",
    "histogram",
    "Time from a request's arrival at a replica to the end of its answer, by route and status.",
    ("route", "status"),
    SECONDS,
)
REQUESTS_IN_PROGRESS = Metric(
    "raymeta_in_progress_requests", "gauge", "Requests that a replica works on now."
)
ERRORS = Metric(
    "raymeta_errors", "counter", "Requests answered with an error, by its kind.", ("kind", "status")
)
STORE_SECONDS = Metric(
    "raymeta_store_seconds",
    "histogram",
    "Time of one call of the event store, by operation and outcome (ok, error).",
    ("operation", "outcome"),
    SECONDS,
)
ADAPT_SECONDS = Metric(
    "raymeta_adapt_seconds", "histogram", "Time to adapt one batch of users.", (), SECONDS
)
SCORE_SECONDS = Metric(
    "raymeta_score_seconds",
    "histogram",
    "Time to score items for one batch of users.",
    (),
    SECONDS,
)
BATCH_USERS = Metric("raymeta_batch_users", "histogram", "Users adapted in one batch.", (), _COUNTS)
STATE_LOOKUPS = Metric(
    "raymeta_state_lookups",
    "counter",
    "Looks for an adapted state in memory, by result (hit, miss).",
    ("result",),
)
STATES_CACHED = Metric("raymeta_cached_states", "gauge", "Adapted states in a replica's memory.")
STATE_CACHE_BYTES = Metric(
    "raymeta_state_cache_bytes", "gauge", "Bytes of the adapted states in a replica's memory."
)
STATE_BYTES = Metric(
    "raymeta_user_state_bytes", "histogram", "Bytes of one user's adapted state.", (), _BYTES
)
USER_EVENTS = Metric(
    "raymeta_user_events",
    "histogram",
    "Retained events of a user whose record was read.",
    (),
    _COUNTS,
)
STORE_BYTES = Metric(
    "raymeta_store_bytes",
    "gauge",
    "Bytes of the embedded event store on its disk; the same file for all replicas of a machine.",
)
EVENTS = Metric(
    "raymeta_events",
    "counter",
    "Events that came, by what became of them (accepted, duplicate, erased).",
    ("outcome",),
)
ANSWERS = Metric(
    "raymeta_answers",
    "counter",
    "Lists answered, by tenant, variant and fallback (none, prior, store, adaptation).",
    ("tenant", "variant", "fallback"),
)
CATALOGUE_REFRESHES = Metric(
    "raymeta_catalogue_refresh_seconds",
    "histogram",
    "Time to take over the shop's changes to items, once a replica learned of them.",
    ("tenant",),
    SECONDS,
)
MODEL_INFO = Metric(
    "raymeta_model_info",
    "gauge",
    "1 for each model that answers.",
    ("tenant", "variant", "model_version"),
)
MODEL_LOADED = Metric(
    "raymeta_models_loaded_timestamp_seconds", "gauge", "When the models were loaded, Unix time."
)

METRICS: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
"""Every one that is counted."""


@dataclass(slots=True)
class Histogram:
    """How many values fell into each bucket; the last is above all bounds."""

    counts: list[int]
    total: float = 0.0


class Sink(Protocol):
    """Where records go beside the meter."""

    def add(self, metric: Metric, labels: Labels, value: float) -> None: ...

    def set(self, metric: Metric, labels: Labels, value: float) -> None: ...

    def observe(self, metric: Metric, labels: Labels, value: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a meter held at one moment, by metric and labels."""

    values: Mapping[tuple[str, Labels], float]
    histograms: Mapping[tuple[str, Labels], tuple[int, ...]]


@dataclass
class Meter:
    """The numbers of one process; used from any of its threads.

    A record costs about 1 us here, and 2 us more where a sink hands it to Ray's metrics.

    Attributes:
        sink: where each record goes too; None: nowhere.
    """

    sink: Sink | None = None
    _values: dict[tuple[str, Labels], float] = field(default_factory=dict)
    _histograms: dict[tuple[str, Labels], Histogram] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, metric: Metric, *labels: str, count: float = 1.0) -> None:
        """Counts."""
        key = (metric.name, labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + count
        if self.sink is not None:
            self.sink.add(metric, labels, count)

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """Says what a gauge shows."""
        with self._lock:
            self._values[metric.name, labels] = value
        if self.sink is not None:
            self.sink.set(metric, labels, value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds one value to a histogram."""
        key = (metric.name, labels)
        with self._lock:
            found = self._histograms.get(key)
            if found is None:
                found = self._histograms[key] = Histogram([0] * (len(metric.buckets) + 1))
            found.counts[bisect_left(metric.buckets, value)] += 1
            found.total += value
        if self.sink is not None:
            self.sink.observe(metric, labels, value)

    def value(self, metric: Metric, *labels: str) -> float:
        """What was counted, or of a histogram how many values."""
        if metric.kind == "histogram":
            found = self._histograms.get((metric.name, labels))
            return 0.0 if found is None else float(sum(found.counts))
        return self._values.get((metric.name, labels), 0.0)

    def series(self, metric: Metric) -> Iterator[tuple[Labels, float]]:
        """Each label set that was seen, with its `value`."""
        held = self._histograms if metric.kind == "histogram" else self._values
        for name, labels in list(held):
            if name == metric.name:
                yield labels, self.value(metric, *labels)

    def reading(self) -> Reading:
        """All of it now."""
        with self._lock:
            return Reading(
                dict(self._values),
                {key: tuple(found.counts) for key, found in self._histograms.items()},
            )


def quantile(metric: Metric, counts: tuple[int, ...] | list[int], share: float) -> float | None:
    """The value below which `share` of a histogram lies, linear within a bucket as PromQL's
    `histogram_quantile` has it; None without values. Above the last bound it is that bound."""
    whole = sum(counts)
    if whole == 0:
        return None
    wanted, below = share * whole, 0
    for index, count in enumerate(counts[:-1]):
        if count and below + count >= wanted:
            low = metric.buckets[index - 1] if index else 0.0
            high = metric.buckets[index]
            return low + (high - low) * (wanted - below) / count
        below += count
    return metric.buckets[-1]
