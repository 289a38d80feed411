"""Spans of requests, through OpenTelemetry where a service asks for them; free where it does not.

    with tracing.span("store.read"):
        ...

`start` sends spans to a collector, and needs the extra `otel`. Tests hand in a tracer of their own.
Leaves which parts of a request are worth a span to the code that has them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from raymeta.errors import ConfigError

SERVICE_NAME = "raymeta"
_NO_SPAN = contextlib.nullcontext()
_tracer: Any = None


def start(*, endpoint: str | None, sample_ratio: float) -> Any:
    """Sends the spans of this process to a collector from now on; once a process.

    Args:
        endpoint: of OTLP over HTTP, e.g. `http://collector:4318/v1/traces`; None: what
            OTEL_EXPORTER_OTLP_ENDPOINT says.
        sample_ratio: the share of requests that are traced, unless their caller decided.

    Returns:
        The provider, whose `shutdown` sends what still waits.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise ConfigError(
            f"Tracing is asked for, and {error.name} is not installed.",
            remedy="pip install 'raymeta[otel]'",
        ) from None
    provider = TracerProvider(
        resource=Resource.create({"service.name": SERVICE_NAME}),
        sampler=ParentBasedTraceIdRatio(sample_ratio),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _use(provider.get_tracer(SERVICE_NAME))
    return provider


@contextlib.contextmanager
def using(tracer: Any) -> Iterator[None]:
    """Makes spans with `tracer` for the length of the block."""
    before = _tracer
    _use(tracer)
    try:
        yield
    finally:
        _use(before)


def span(name: str, **attributes: str | int | float) -> Any:
    """A span under the one that is open here; a context manager, of nothing while tracing is off.

    A batch's span belongs to the request that began the batch.
    """
    if _tracer is None:
        return _NO_SPAN
    return _tracer.start_as_current_span(name, attributes=attributes)


def request_span(name: str, headers: list[tuple[bytes, bytes]], **attributes: str) -> Any:
    """`span` of a whole request: under its caller's, where `traceparent` among the headers says."""
    if _tracer is None:
        return _NO_SPAN
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return _tracer.start_as_current_span(
        name, context=extract(carrier), kind=SpanKind.SERVER, attributes=attributes
    )


def _use(tracer: Any) -> None:
    global _tracer
    _tracer = tracer
