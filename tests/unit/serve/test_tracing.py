"""The spans of a request: what is under what, whose trace it joins, and that off means none."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from raymeta.errors import ConfigError
from raymeta.observability import tracing
from raymeta.serve.ingress import create_app
from raymeta.serve.service import Service
from tests.unit.serve.test_ingress import purchase

pytest.importorskip("opentelemetry.sdk", reason="pip install 'raymeta[otel]'")

Call = Callable[..., httpx.Response]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def spans() -> Iterator[Callable[[], dict[str, Any]]]:
    """Traces for the length of a test; called, it gives the finished spans by name."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.using(provider.get_tracer("test")):
        yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    provider.shutdown()


def test_a_request_holds_its_store_adapt_and_score(
    call: Call, spans: Callable[[], dict[str, Any]]
) -> None:
    call(
        "POST",
        "/v1/recommend",
        json={"user_id": "ann", "events": [purchase("item2")]},
        headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-Id": "given-1"},
    )
    found = spans()
    whole = found["POST /v1/recommend"]
    assert set(found) == {"POST /v1/recommend", "store.append_and_read", "adapt", "score"}
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert f"{whole.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert whole.attributes["http.response.status_code"] == 200
    assert whole.attributes["request_id"] == "given-1"
    for name in ("store.append_and_read", "adapt", "score"):
        assert found[name].parent.span_id == whole.context.span_id
        assert whole.start_time <= found[name].start_time <= found[name].end_time
    assert found["adapt"].attributes["users"] == 1
    told = str([dict(span.attributes) for span in found.values()])
    assert "ann" not in told
    assert "item2" not in told


def test_a_refusal_has_its_status(call: Call, spans: Callable[[], dict[str, Any]]) -> None:
    call("GET", "/v1/users/ann/state")
    whole = spans()["GET /v1/users/{user_id:path}/state"]
    assert whole.attributes["http.response.status_code"] == 404


def test_off_makes_no_span_and_opens_nothing() -> None:
    assert tracing.span("store.read") is tracing.span("adapt", users=3)
    with tracing.span("store.read") as nothing:
        assert nothing is None


def test_the_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"raymeta\[otel\]"):
        tracing.start(endpoint=None, sample_ratio=1.0)


def test_spans_reach_a_collector(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the exporter itself, over HTTP, to a collector that keeps what it is sent."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="pip install 'raymeta[otel]'"
    )
    from tests.helpers.http import listening

    got: list[bytes] = []

    async def collector(scope: Any, receive: Any, send: Any) -> None:
        got.append((await receive()).get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(tracing, "_tracer", None)
    with listening(collector) as url:
        provider = tracing.start(endpoint=f"{url}/v1/traces", sample_ratio=1.0)

        async def ask() -> None:
            transport = httpx.ASGITransport(app=create_app(service))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                await client.get("/readyz")

        asyncio.run(ask())
        provider.shutdown()
    assert b"GET /readyz" in b"".join(got)
