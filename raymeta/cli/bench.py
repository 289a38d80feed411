"""`raymeta bench serve`: how fast an endpoint answers, lone, at saturation and at a given rate."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from raymeta.cli.output import console, emit
from raymeta.errors import ConfigError

app = typer.Typer()


@app.callback()
def bench() -> None:
    """Measure a running service.

    Example: raymeta bench serve http://127.0.0.1:8000 --rate 200
    """


@app.command()
def serve(
    url: Annotated[
        str | None, typer.Argument(help="A running endpoint, e.g. http://127.0.0.1:8000.")
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(
            help="Serve this artifact for the run, beside an application that does nothing."
        ),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="With --artifact: processes.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second; 70% of what saturation gives if not given."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each phase of each round.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often the phases are repeated.")] = 3,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time, saturated.")] = 16,
    burst: Annotated[
        float, typer.Option(min=1.0, help="Every other second has so many times the rate.")
    ] = 1.0,
    users: Annotated[int, typer.Option(min=1, help="Returning users.")] = 10_000,
    zipf: Annotated[float, typer.Option(min=0.0, help="How unequal they are.")] = 1.0,
    new: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of new users.")] = 0.1,
    writes: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of requests with a fresh event.")
    ] = 1.0,
    affinity: Annotated[
        bool, typer.Option(help="Name the user for the balancer (X-Session-Id).")
    ] = False,
    key: Annotated[
        str | None, typer.Option(envvar="RAYMETA_API_KEY", help="API key, if the service has keys.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Draw the latencies into this PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Measure an endpoint under load that looks like a shop's.

    Latencies count from when a request was due, whether the server was ready for it or not.

    Example: raymeta bench serve http://127.0.0.1:8000 --rate 200 --plot latency.png
    """
    from raymeta.serve.load import report
    from raymeta.serve.load.run import Plan, Target, generator_limit, measure
    from raymeta.serve.load.traffic import Traffic

    if (url is None) == (artifact is None):
        raise ConfigError(
            "Give either the URL of a running endpoint or --artifact DIR.",
            remedy="For example: raymeta bench serve http://127.0.0.1:8000",
        )
    plan = Plan(rate=rate, duration_s=seconds, rounds=rounds, concurrency=concurrency, burst=burst)
    traffic = Traffic(
        num_users=users, zipf=zipf, new_share=new, write_share=writes, seed=seed, affinity=affinity
    )
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with _targets(url, artifact, replicas) as found:
        limit = generator_limit()
        targets = [Target(name, base, headers) for name, base in found.items()]
        measured = measure(targets, plan, traffic, progress=console.print)
    result = {
        "generator_limit_per_s": round(limit, 1),
        "targets": {
            name: {phase: report.summary(outcomes) for phase, outcomes in phases.items()}
            for name, phases in measured.items()
        },
    }
    if plot is not None:
        runs = {
            f"{name}, {phase.replace('_', ' ')}": outcomes
            for name, phases in measured.items()
            for phase, outcomes in phases.items()
        }
        report.plot(runs, plot)
        result["plot"] = str(plot)
    emit(result, as_json=as_json, render=_render)


@contextlib.contextmanager
def _targets(url: str | None, artifact: Path | None, replicas: int) -> Iterator[dict[str, str]]:
    """What is measured, by name; with an artifact, served for the length of the block."""
    if url is not None:
        yield {"endpoint": url}
        return
    import tempfile

    from raymeta.runtime import free_port
    from raymeta.serve.local import serve_beside_noop

    assert artifact is not None
    console.print(f"Serving {artifact} beside an application that does nothing ...")
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_beside_noop(
            artifact, port=free_port(), num_replicas=replicas, store=Path(folder) / "e.sqlite"
        ) as urls,
    ):
        yield urls


def _render(result: dict[str, Any]) -> Table:
    table = Table(
        caption=f"The generator can send {result['generator_limit_per_s']:.0f} a second.",
        caption_justify="left",
    )
    for column in ("target", "phase"):
        table.add_column(column)
    for column in ("good", "errors", "per s", "p50 ms", "p90", "p99", "p99.9", "generator CPU"):
        table.add_column(column, justify="right")
    for name, phases in result["targets"].items():
        for phase, facts in phases.items():
            latency = facts.get("latency_ms", {})
            errors = ", ".join(f"{count} x {kind}" for kind, count in facts["errors"].items())
            table.add_row(
                name,
                phase.replace("_", " "),
                str(facts["good"]),
                errors or "0",
                f"{facts['throughput_per_s']:.0f}",
                *(f"{latency.get(p, float('nan')):.2f}" for p in ("p50", "p90", "p99", "p99.9")),
                f"{facts['generator_cpu']:.0%}",
            )
    return table
