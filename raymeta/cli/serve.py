"""`raymeta serve`: one artifact behind an HTTP endpoint, until Ctrl-C."""

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from raymeta.cli.output import console, emit


def serve(
    artifact: Annotated[Path, typer.Argument(help="The artifact folder that training wrote.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Requests need no key: keep it local.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    store: Annotated[
        Path, typer.Option(help="SQLite file of the users' events; made where missing.")
    ] = Path("raymeta-events.sqlite"),
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster; one is started here if not given."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line once it is ready.")
    ] = False,
) -> None:
    """Serve an artifact over HTTP until Ctrl-C.

    Events are durable before they are acknowledged, and the next answer reflects them.

    Example: raymeta serve runs/shop/artifact --port 8000
    """
    from raymeta.serve.local import serve_artifact

    console.print(f"Starting Ray Serve with {replicas} replica(s) of {artifact} ...")
    with serve_artifact(
        artifact, host=host, port=port, num_replicas=replicas, store=store, address=address
    ) as url:
        result = {"url": url, "artifact": str(artifact), "store": str(store), "replicas": replicas}
        emit(result, as_json=as_json, render=_render)
        wait_for_interrupt()
        console.print("Stopping ...")


def _render(result: dict[str, Any]) -> str:
    url, item = result["url"], _an_item(Path(result["artifact"]))
    event = {"user_id": "ann", "events": [{"item_id": item, "event_type": "purchase"}]}
    return "\n".join(
        [
            f"Serving at {url} (events in {result['store']}). Try, in another terminal:",
            "",
            _curl(f"{url}/v1/events", event),
            _curl(f"{url}/v1/recommend", {"user_id": "ann", "n": 5}),
            "",
            f"Routes: {url}/openapi.json. Ctrl-C stops it; the events stay.",
        ]
    )


def _curl(url: str, body: dict[str, Any]) -> str:
    return f"curl -s {url} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


def _an_item(artifact: Path) -> str:
    from raymeta.artifact import load_artifact

    return str(load_artifact(artifact).catalogue.item_ids[0])


def wait_for_interrupt() -> None:
    """Returns at the first Ctrl-C or SIGTERM; both end the service in order."""
    with _sigterm_interrupts(), contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
