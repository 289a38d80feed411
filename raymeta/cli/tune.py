"""`raymeta tune`: a sweep, resumable, with its table, its picture and its best trial's artifact."""

import contextlib
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from raymeta.cli.output import console, emit
from raymeta.config.sweep import SweepConfig, load_sweep
from raymeta.errors import ConfigError

_REFRESH_S = 1.0


def tune(
    sweep_file: Annotated[Path, typer.Argument(help="A sweep file.", metavar="SWEEP")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="path=value of the sweep; of its experiment with fixed.path=value."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder that `raymeta prepare` wrote; the experiment's if left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder; runs/NAME if left out.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="A running Ray cluster; one is started here if left out.",
            envvar="RAY_ADDRESS",
            show_envvar=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Search how the inner steps should be taken.

    The same command again goes on with a sweep that was interrupted, and retries what failed.

    Example: raymeta tune tune_configs/sweeps/inner_loop.yaml --data runs/data
    """
    sweep, base = load_sweep(sweep_file, overrides or [])
    folder = out if out is not None else Path("runs") / sweep.name
    data_dir = data if data is not None else Path(base.data.path) if base.data.path else None
    if data_dir is None:
        raise ConfigError(
            f"{sweep_file}: its experiment names no data.",
            remedy="Name the folder that raymeta prepare wrote with --data.",
        )
    from raymeta.tune.report import write_report
    from raymeta.tune.sweep import run_sweep

    console.print(
        f"Sweep {sweep.name} in {folder}: {sweep.num_samples} trials over {', '.join(sweep.vary)}.",
        soft_wrap=True,
    )
    with _progress(folder, sweep):
        result = run_sweep(sweep, base, data_dir=data_dir, out=folder, address=address)
    files = write_report(
        folder, sweep=sweep, trials=result.trials, best=result.best, sweep_file=str(sweep_file)
    )
    shown: dict[str, Any] = {
        "name": sweep.name,
        "out": folder,
        "best": result.trials[0].__dict__,
        "trials": [trial.__dict__ for trial in result.trials],
        "artifact": result.artifact,
        "data": data_dir,
        **files,
    }
    emit(shown, as_json=as_json, render=lambda values: _render(values, sweep))


@contextlib.contextmanager
def _progress(folder: Path, sweep: SweepConfig) -> Iterator[None]:
    """A bar on stderr, fed from the trials' folders, which a trial anywhere can write."""
    from raymeta.tune.records import read_trials

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} trials"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("Searching", total=sweep.num_samples, best="")
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_REFRESH_S):
            trials = read_trials(folder)
            ended = sum(bool(trial.ending) for trial in trials)
            best = trials[0].best_score if trials else None
            text = "" if best is None else f"best {best:.4f}"
            bar.update(task, completed=min(ended, sweep.num_samples), best=text)

    watcher = threading.Thread(target=watch, daemon=True)
    with bar:
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _render(values: dict[str, Any], sweep: SweepConfig) -> RenderableType:
    from raymeta.tune.report import shown

    table = Table(title=f"{sweep.name}: {len(values['trials'])} trials, best first")
    for path in sweep.vary:
        table.add_column(path, justify="right")
    table.add_column("score", justify="right", style="bold")
    table.add_column("at step", justify="right")
    table.add_column("last step", justify="right")
    table.add_column("ended")
    for trial in values["trials"]:
        score = "-" if trial["best_score"] is None else f"{trial['best_score']:.4f}"
        table.add_row(
            *(shown(trial["values"].get(path, "")) for path in sweep.vary),
            score,
            str(trial["best_step"]),
            str(trial["last_step"]),
            trial["ending"],
        )
    command = ["raymeta", "evaluate", str(values["artifact"]), "--data", str(values["data"])]
    lines = [
        f"Picture:     {values['picture']}",
        f"Experiment:  {values['experiment']}",
        f"Artifact:    {values['artifact']}",
        f"Next:        {shlex.join(command)}",
    ]
    return Group(table, *(Text(line, no_wrap=True) for line in lines))
