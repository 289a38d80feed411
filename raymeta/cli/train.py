"""`raymeta train`: meta-training with its progress, and what to do with the artifact."""

import contextlib
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from raymeta.cli.output import console, emit
from raymeta.config.base import load_settings
from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import ConfigError


def train(
    config: Annotated[Path, typer.Argument(help="An experiment file.", metavar="CONFIG")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting to change, path=value; repeatable.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder that `raymeta prepare` wrote; the experiment's if left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/NAME if left out.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Ray Train workers; the experiment's if left out.")
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
    """Meta-train a recommender on many users, and write an artifact that serves a new one.

    The same command again goes on with a run that was interrupted.

    Example: raymeta train tune_configs/experiments/complete_journey.yaml --data runs/data
    """
    settings = list(overrides or [])
    if num_workers is not None:
        settings.append(f"training.num_workers={num_workers}")
    experiment = load_settings(ExperimentConfig, config, settings)
    data_dir = data if data is not None else Path(experiment.data.path or "")
    if data is None and experiment.data.path is None:
        raise ConfigError(
            f"{config} names no data.",
            remedy="Name the folder that raymeta prepare wrote with --data.",
        )
    folder = out if out is not None else Path("runs") / experiment.name
    from raymeta.train.trainer import fit

    workers = experiment.training.num_workers
    console.print(
        f"Training {experiment.name} ({experiment.model.name}, {experiment.algorithm.name}) "
        f"with {workers} worker(s), in {folder}.",
        soft_wrap=True,
    )
    started_s = time.monotonic()
    with progress(experiment) as reporter:
        result = fit(
            experiment, data_dir, folder, num_workers=workers, address=address, reporter=reporter
        )
    summary = {
        "name": experiment.name,
        "artifact": result.artifact_path,
        "metric": experiment.scenario.metric,
        "score": result.best_score,
        "best_step": result.best_step,
        "curve": {str(size): value for size, value in result.curve.items()},
        "num_workers": workers,
        "data": data_dir,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    emit(summary, as_json=as_json, render=_render)


class BarReporter:
    """Each validation as a line; on a terminal, a bar below them with the score so far."""

    def __init__(self, bar: Progress, task: TaskID, metric: str) -> None:
        self._bar, self._task, self._metric = bar, task, metric

    def report(self, step: int, metrics: dict[str, float]) -> None:
        score = f"{self._metric} {_short(metrics['score'])}" if "score" in metrics else ""
        self._bar.update(self._task, completed=step, note=score)
        console.print(f"step {step}: {metrics_text(metrics, self._metric)}", soft_wrap=True)


@contextlib.contextmanager
def progress(experiment: ExperimentConfig) -> Iterator[BarReporter]:
    """A bar over outer steps on stderr, for the length of a `with`."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("step {task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    total = experiment.training.max_outer_steps
    task = bar.add_task("Training", total=total, note="starting Ray and the workers")
    with bar:
        yield BarReporter(bar, task, experiment.scenario.metric)


def metrics_text(metrics: Mapping[str, float], metric: str) -> str:
    """E.g. `loss 5.102  640 users/s  nDCG@10 0: .412  1: .529  (mean .478)`."""
    parts = []
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']:.3f}")
    if "users_per_s" in metrics:
        parts.append(f"{metrics['users_per_s']:.0f} users/s")
    curve = {
        int(key.removeprefix("curve/")): value
        for key, value in metrics.items()
        if key.startswith("curve/")
    }
    if curve:
        by_size = "  ".join(f"{k}: {_short(v)}" for k, v in sorted(curve.items()))
        parts.append(f"{metric} {by_size}")
    if "score" in metrics:
        parts.append(f"(mean {_short(metrics['score'])})")
    return "  ".join(parts)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _render(summary: dict[str, Any]) -> RenderableType:
    table = Table(
        title=f"{summary['name']}: {summary['metric']} on validation users, by support size"
    )
    for size in summary["curve"]:
        table.add_column(size, justify="right")
    table.add_row(*(_short(value) for value in summary["curve"].values()))
    artifact, data = str(summary["artifact"]), str(summary["data"])
    commands = [
        ["raymeta", "evaluate", artifact, "--data", data],
        ["raymeta", "serve", artifact],
    ]
    lines = [
        f"Artifact:  {artifact} (best at step {summary['best_step']}, {summary['seconds']:.0f} s)",
        *(f"Next:      {shlex.join(command)}" for command in commands),
    ]
    return Group(table, *(Text(line, no_wrap=True) for line in lines))
