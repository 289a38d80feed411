"""What nodes export, written by Prometheus's own client: replicas whose numbers are known."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from raymeta.observability.metrics import METRICS, Labels, Metric


class Replica:
    """A sink whose records become the text of a node's metrics port, as Ray names them."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._registry = CollectorRegistry()
        self._made = {metric.name: self._of(metric) for metric in METRICS}

    def add(self, metric: Metric, labels: Labels, value: float) -> None:
        self._made[metric.name].labels(*labels, self._worker).inc(value)

    def set(self, metric: Metric, labels: Labels, value: float) -> None:
        self._made[metric.name].labels(*labels, self._worker).set(value)

    def observe(self, metric: Metric, labels: Labels, value: float) -> None:
        self._made[metric.name].labels(*labels, self._worker).observe(value)

    def text(self) -> str:
        others = "# TYPE ray_of_another gauge\nray_of_another 7.0\n"
        return others + generate_latest(self._registry).decode()

    def _of(self, metric: Metric) -> Counter | Gauge | Histogram:
        classes: Mapping[str, type[Counter | Gauge | Histogram]] = {
            "counter": Counter,
            "gauge": Gauge,
            "histogram": Histogram,
        }
        options = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
        return classes[metric.kind](
            f"ray_{metric.name}",
            metric.help,
            (*metric.labels, "WorkerId"),
            registry=self._registry,
            **options,
        )
