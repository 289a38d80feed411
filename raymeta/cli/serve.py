"""`raymeta serve`: one artifact behind an HTTP endpoint, until Ctrl-C."""

import contextlib
import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymeta.cli.output import console, emit
from raymeta.errors import ConfigError

if TYPE_CHECKING:
    from raymeta.config.serving import StoreConfig


def serve(
    artifact: Annotated[
        Path | None, typer.Argument(help="The artifact folder that training wrote.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach needs --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    store: Annotated[
        str,
        typer.Option(
            help="Where events are kept: an SQLite file, made where missing, or the URL of a "
            "redis:// or postgresql:// server."
        ),
    ] = "raymeta-events.sqlite",
    keys: Annotated[
        Path | None, typer.Option(help="YAML file of API keys; anybody may call without one.")
    ] = None,
    playground: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA_DIR",
            help="The data set of the artifact: the page can then replay real test users beside "
            "baselines.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster; one is started here if not given."),
    ] = None,
    compat: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRODUCT", help="Understand gorse's, metarank's or personalize's requests too."
        ),
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a new API key and its entry, and serve nothing."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line once it is ready.")
    ] = False,
) -> None:
    """Serve an artifact over HTTP until Ctrl-C.

    Events are durable before they are acknowledged, and the next answer reflects them.

    Example: raymeta serve runs/shop/artifact --port 8000
    """
    if new_key is not None:
        _print_new_key(new_key, as_json=as_json)
        return
    if artifact is None:
        raise ConfigError(
            "No artifact is given.", remedy="For example: raymeta serve runs/shop/artifact"
        )
    from raymeta.serve.local import serve_artifact

    console.print(f"Starting Ray Serve with {replicas} replica(s) of {artifact} ...")
    with (
        written_households(artifact, playground) as households_file,
        serve_artifact(
            artifact,
            host=host,
            port=port,
            num_replicas=replicas,
            store=_store(store),
            keys_file=keys,
            households_file=households_file,
            compat=compat or (),
            address=address,
        ) as url,
    ):
        shown = store.rpartition("@")[2]  # a URL may hold a password
        result = {"url": url, "artifact": str(artifact), "store": shown, "replicas": replicas}
        emit(result, as_json=as_json, render=_render)
        wait_for_interrupt()
        console.print("Stopping ...")


@contextlib.contextmanager
def written_households(artifact: Path, data_dir: Path | None) -> Iterator[Path | None]:
    """A file of the test users that the page can replay, for as long as a service reads it."""
    if data_dir is None:
        yield None
        return
    from raymeta.artifact import load_artifact
    from raymeta.serve.households import find_households

    with console.status("Choosing test users to replay, and tuning baselines beside them"):
        households = find_households(load_artifact(artifact), data_dir)
    with tempfile.TemporaryDirectory(prefix="raymeta-playground-") as folder:
        file = Path(folder) / "households.json"
        file.write_text(households.model_dump_json())
        yield file


def _store(text: str) -> "str | StoreConfig":
    """The store that a file name or a URL means."""
    from raymeta.config.serving import PostgresStoreConfig, RedisStoreConfig

    scheme = text.partition("://")[0]
    if scheme in ("redis", "rediss"):
        return RedisStoreConfig(url=text)
    if scheme in ("postgresql", "postgres"):
        return PostgresStoreConfig(url=text)
    return text


def _print_new_key(name: str, *, as_json: bool) -> None:
    from raymeta.serve.access import KeyConfig, Scope, new_key

    key, sha256 = new_key()
    # refuses a name that the file would refuse
    entry = KeyConfig.parse(
        {"name": name, "sha256": sha256, "scopes": [Scope.READ, Scope.WRITE]}, source="--new-key"
    )
    result = {"key": key, "entry": entry.model_dump(mode="json", exclude_none=True)}
    emit(result, as_json=as_json, render=_render_key)


def _render_key(result: dict[str, Any]) -> str:
    entry = result["entry"]
    return "\n".join(
        [
            f"The key, shown this once: {result['key']}",
            "Its entry in the keys file:",
            "",
            "keys:",
            f"  - name: {entry['name']}",
            f'    sha256: "{entry["sha256"]}"',
            f"    scopes: [{', '.join(entry['scopes'])}]   # and admin, to erase and export",
        ]
    )


def _render(result: dict[str, Any]) -> str:
    url, item = result["url"], _an_item(Path(result["artifact"]))
    event = {"user_id": "ann", "events": [{"item_id": item, "event_type": "purchase"}]}
    return "\n".join(
        [
            f"Serving at {url} (events in {result['store']}).",
            f"Shop there: open {url}/ in a browser. Or try, in another terminal:",
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
