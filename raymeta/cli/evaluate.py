"""`raymeta evaluate`: how well users that training never met are served, beside baselines."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymeta.cli.output import console, emit
from raymeta.errors import ConfigError

if TYPE_CHECKING:
    from raymeta.config.experiment import DataConfig
    from raymeta.evaluation.fold import EvaluationSettings, FoldScores


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            help="An artifact folder, or an experiment file whose folds are trained and scored."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The folder that `raymeta prepare` wrote; the experiment's if left out."),
    ] = None,
    support_sizes: Annotated[
        str | None, typer.Option(help="How much is known of a user, e.g. 0,1,2,3,5,10.")
    ] = None,
    unit: Annotated[
        Literal["visits", "items"] | None,
        typer.Option(help="What support sizes count; as in training if left out."),
    ] = None,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Rank support items too: people buy things again.")
    ] = False,
    baselines: Annotated[
        str | None,
        typer.Option(help="Comma-separated; all if left out, none for the model alone."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=1, help="With an experiment: train and score a model a fold (default 5)."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="With an experiment: seeds of training, e.g. 0,1,2.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="With an experiment: a setting to change, path=value."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; `report` beside the artifact if left out."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="With an experiment: a running Ray cluster.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Score an artifact, or an experiment over folds, on users that training never met.

    Writes results.json, report.html, report.md, pictures and per_user.parquet. Over folds, what
    was computed is kept in the report's folder, so that the same command goes on where it was
    interrupted.

    Example: raymeta evaluate runs/grocery/artifact --data data/grocery
    Example: raymeta evaluate tune_configs/experiments/grocery.yaml --folds 5 --data data/grocery
    """
    started = time.perf_counter()
    sizes, names = parse_numbers(support_sizes, "--support-sizes"), parse_names(baselines)
    chosen = _Chosen(data, sizes, unit, repeat, names)
    if target.is_file():
        scores, protocol, folder = _evaluate_experiment(
            target, chosen, folds, parse_numbers(seeds, "--seeds"), overrides or [], out, address
        )
    else:
        only_folds = {"--folds": folds, "--seeds": seeds, "--set": overrides, "--address": address}
        if given := [option for option, value in only_folds.items() if value]:
            raise ConfigError(
                f"{given[0]} needs an experiment file, and {target} is not a file.",
                remedy="Give the experiment's YAML file, or leave the option out.",
            )
        scores, protocol, folder = _evaluate_artifact(target, chosen, out)
    result = _report(scores, protocol, folder, started)
    emit({**result, "report": str(folder)}, as_json=as_json, render=render)


class _Chosen:
    """What the command line says of the measurement; the experiment says the rest."""

    def __init__(
        self,
        data: Path | None,
        sizes: tuple[int, ...] | None,
        unit: Literal["visits", "items"] | None,
        repeat: bool,
        baselines: tuple[str, ...] | None,
    ) -> None:
        self._data, self._sizes, self._unit = data, sizes, unit
        self._repeat, self._baselines = repeat, baselines

    def data_dir(self, config: "DataConfig") -> Path:
        if self._data is None and config.path is None:
            raise ConfigError(
                "No data was named, and the experiment names none.",
                remedy="Add --data with the folder that `raymeta prepare` wrote.",
            )
        return self._data or Path(str(config.path))

    def settings(self, config: "DataConfig") -> "EvaluationSettings":
        from raymeta.evaluation.fold import EvaluationSettings
        from raymeta.evaluation.tuning import BASELINES

        return EvaluationSettings(
            support_sizes=config.support_sizes if self._sizes is None else self._sizes,
            unit=self._unit or config.unit,
            repeat=self._repeat,
            baselines=BASELINES if self._baselines is None else self._baselines,
        )


Evaluated = tuple[list["FoldScores"], dict[str, Any], Path]


def _evaluate_artifact(target: Path, chosen: _Chosen, out: Path | None) -> Evaluated:
    from raymeta.artifact import load_artifact
    from raymeta.evaluation.report import require_report_folder
    from raymeta.evaluation.run import evaluate_artifact, protocol_facts

    artifact = load_artifact(target)
    config = artifact.experiment.data
    folder = out or target.resolve().parent / "report"
    require_report_folder(folder)
    settings = chosen.settings(config)
    with console.status("Evaluating") as status:
        scores = evaluate_artifact(
            artifact, chosen.data_dir(config), settings, note=lambda text: status.update(text)
        )
    name = artifact.experiment.name
    return scores, protocol_facts(config, settings, name=name, folds=1), folder


def _evaluate_experiment(
    target: Path,
    chosen: _Chosen,
    folds: int | None,
    seeds: tuple[int, ...] | None,
    overrides: list[str],
    out: Path | None,
    address: str | None,
) -> Evaluated:
    from raymeta.config.base import load_settings
    from raymeta.config.experiment import ExperimentConfig
    from raymeta.evaluation.report import CELLS, require_report_folder
    from raymeta.evaluation.run import protocol_facts
    from raymeta.experiments.folds import plan, run_jobs

    experiment = load_settings(ExperimentConfig, target, overrides)
    config = experiment.data
    if folds is None:
        folds = 1 if config.split.kind == "time" else config.split.num_folds
    folder = out or Path("runs") / experiment.name / "report"
    require_report_folder(folder)
    settings = chosen.settings(config)
    seeds = seeds or (experiment.seed,)
    jobs = plan(
        experiment,
        chosen.data_dir(config),
        settings,
        cells=folder / CELLS,
        num_folds=folds,
        seeds=seeds,
    )
    with console.status(f"Training and scoring {folds} fold(s)"):
        scores = run_jobs(jobs, address=address, note=lambda text: console.print(text))
    protocol = protocol_facts(
        config, settings, name=experiment.name, folds=folds, seeds=len(set(seeds))
    )
    return scores, protocol, folder


def _report(
    scores: list["FoldScores"], protocol: dict[str, Any], folder: Path, started: float
) -> dict[str, Any]:
    from raymeta.evaluation.report import write_report
    from raymeta.evaluation.run import run_facts
    from raymeta.evaluation.summary import summarise

    command = shlex.join(["raymeta", *sys.argv[1:]])
    result = {
        **summarise(scores),
        "protocol": protocol,
        "run": run_facts(command, wall_s=time.perf_counter() - started, folds=scores),
    }
    write_report(result, scores, folder)
    return result


def render(result: dict[str, Any]) -> Group:
    """The tables for a terminal: nDCG@10, Recall@20 and the paired differences."""
    from raymeta.evaluation.tables import METRIC_TITLES, difference_rows, quality_rows

    unit = result["protocol"]["unit"]
    tables: list[Any] = []
    for metric in ("ndcg_at_10", "recall_at_20"):
        rows = quality_rows(result, metric)
        title = f"{METRIC_TITLES[metric]} of new users after so many {unit}"
        tables.append(_table(title, rows, result["support_sizes"]))
    known = [size for size in result["support_sizes"] if size > 0]
    if result["differences"] and known:
        title = "nDCG@10: adapted less each other method, paired by user; bold where clear of zero"
        rows = difference_rows(result, known, marks=("[bold]", "[/bold]"))
        tables.append(_table(title, rows, known))
    if result["harm_rate"]:
        worst = max(result["harm_rate"].items(), key=lambda pair: pair[1])
        text = f"Adapting makes at most {worst[1]:.1%} of users worse (after {worst[0]} {unit})."
        tables.append(Text(text))
    run = result["run"]
    tables.append(
        Text(
            f"Report in {result['report']} ({run['wall_s']:.0f} s, "
            f"{run['peak_memory_mb'] / 1000:.1f} GB)."
        )
    )
    return Group(*tables)


def _table(title: str, rows: list[tuple[str, list[str]]], sizes: list[int]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("")
    for size in sizes:
        table.add_column(str(size), justify="right")
    for label, cells in rows:
        table.add_row(label, *cells, style={"adapted": "bold", "chance": "dim"}.get(label))
    return table


def parse_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """`0,1,5` as numbers; a part that is not a whole number from 0 on is refused."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isascii() or not part.isdigit()]
    if wrong:
        raise ConfigError(
            f"{option} {text!r}: {wrong[0]!r} is not a whole number from 0 on.",
            remedy=f"Write for example {option} 0,1,2.",
        )
    return tuple(int(part) for part in parts)


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """`popularity,ease` as names; `none` as no name at all."""
    if text is None:
        return None
    return () if text == "none" else tuple(part.strip() for part in text.split(","))
