"""What the service counts: every metric by name, unit and labels, and the meter that holds them.

A name ends in its unit (`_seconds`, `_bytes`, `_users`). The meter knows how often; a sink hands
each record on to whatever is scraped, which has the values. Leaves which system that is to
`serve.metric_export`, and what is worth counting to the code that counts.
"""

import threading
from collections.abc import Iterator
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


class Sink(Protocol):
    """Where records go beside the meter."""

    def add(self, metric: Metric, labels: Labels, value: float) -> None: ...

    def set(self, metric: Metric, labels: Labels, value: float) -> None: ...

    def observe(self, metric: Metric, labels: Labels, value: float) -> None: ...


@dataclass
class Meter:
    """How often each thing was counted in one process; used from any of its threads.

    A record costs about .5 us here, and 2 to 2.5 us more where a sink hands it to Ray's metrics.

    Attributes:
        sink: where each record goes too; None: nowhere.
    """

    sink: Sink | None = None
    _values: dict[tuple[str, Labels], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, metric: Metric, *labels: str, count: float = 1.0) -> None:
        """Counts."""
        self._more(metric, labels, count)
        if self.sink is not None:
            self.sink.add(metric, labels, count)

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """Says what a gauge shows."""
        with self._lock:
            self._values[metric.name, labels] = value
        if self.sink is not None:
            self.sink.set(metric, labels, value)

    def repeat(self, metric: Metric) -> None:
        """Says again what a gauge shows: one that is not set for some seconds leaves Ray's port."""
        for labels, value in list(self.series(metric)):
            self.set(metric, *labels, value=value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds one value to a histogram; which bucket it falls into is the sink's matter."""
        self._more(metric, labels, 1.0)
        if self.sink is not None:
            self.sink.observe(metric, labels, value)

    def value(self, metric: Metric, *labels: str) -> float:
        """What was counted or set; of a histogram how many values it got."""
        return self._values.get((metric.name, labels), 0.0)

    def series(self, metric: Metric) -> Iterator[tuple[Labels, float]]:
        """Each label set that was seen, with its `value`."""
        for name, labels in list(self._values):
            if name == metric.name:
                yield labels, self._values[name, labels]

    def _more(self, metric: Metric, labels: Labels, count: float) -> None:
        key = (metric.name, labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + count
