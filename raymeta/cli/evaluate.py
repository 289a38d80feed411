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
    from raymeta.config.data import DataConfig
    from raymeta.config.experiment import ExperimentConfig
    from raymeta.evaluation.fold import EvaluationSettings, FoldScores
    from raymeta.evaluation.scenarios.base import ScenarioKind, TextTable


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
        str | None,
        typer.Option(help="How much is known of a user, e.g. 0,1,2,3,5,10; all: all but the last."),
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
    locked: Annotated[
        bool,
        typer.Option(
            "--locked", help="Score the users kept aside for a release: once, with an artifact."
        ),
    ] = False,
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
    sizes, names = parse_sizes(support_sizes), parse_names(baselines)
    chosen = _Chosen(data, sizes, unit, repeat, names, locked)
    if target.is_file():
        if locked:
            raise ConfigError(
                "--locked scores what is to be released: an artifact, not an experiment.",
                remedy="Train it, and give the artifact's folder.",
            )
        evaluated = _evaluate_experiment(
            target, chosen, folds, parse_numbers(seeds, "--seeds"), overrides or [], out, address
        )
    else:
        only_folds = {"--folds": folds, "--seeds": seeds, "--set": overrides, "--address": address}
        if given := [option for option, value in only_folds.items() if value]:
            raise ConfigError(
                f"{given[0]} needs an experiment file, and {target} is not a file.",
                remedy="Give the experiment's YAML file, or leave the option out.",
            )
        evaluated = _evaluate_artifact(target, chosen, out)
    emit(_report(evaluated, started), as_json=as_json, render=render)


class _Chosen:
    """What the command line says of the measurement; the experiment says the rest."""

    def __init__(
        self,
        data: Path | None,
        sizes: tuple[int, ...] | None,
        unit: Literal["visits", "items"] | None,
        repeat: bool,
        baselines: tuple[str, ...] | None,
        locked: bool,
    ) -> None:
        self._data, self._sizes, self._unit = data, sizes, unit
        self._repeat, self._baselines, self._locked = repeat, baselines, locked

    def data_dir(self, config: "DataConfig") -> Path:
        if self._data is None and config.path is None:
            raise ConfigError(
                "No data was named, and the experiment names none.",
                remedy="Add --data with the folder that `raymeta prepare` wrote.",
            )
        return self._data or Path(str(config.path))

    def settings(self, experiment: "ExperimentConfig") -> "EvaluationSettings":
        from raymeta.evaluation.scenarios.table import evaluation_settings

        return evaluation_settings(
            experiment,
            support_sizes=self._sizes,
            unit=self._unit,
            repeat=self._repeat,
            baselines=self._baselines,
            locked=self._locked,
        )


Evaluated = tuple[list["FoldScores"], dict[str, Any], Path, str]
"""Scores, what was measured, the report's folder, and the scenario."""


def _evaluate_artifact(target: Path, chosen: _Chosen, out: Path | None) -> Evaluated:
    from raymeta.artifact import load_artifact
    from raymeta.evaluation.report import require_report_folder
    from raymeta.evaluation.run import evaluate_artifact, protocol_facts

    artifact = load_artifact(target)
    config = artifact.experiment.data
    folder = out or target.resolve().parent / "report"
    require_report_folder(folder)
    settings = chosen.settings(artifact.experiment)
    with console.status("Evaluating") as status:
        scores = evaluate_artifact(
            artifact, chosen.data_dir(config), settings, note=lambda text: status.update(text)
        )
    protocol = protocol_facts(config, settings, name=artifact.experiment.name, folds=1)
    return scores, protocol, folder, artifact.experiment.scenario.name


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
    settings = chosen.settings(experiment)
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
    return scores, protocol, folder, experiment.scenario.name


def _report(evaluated: Evaluated, started: float) -> dict[str, Any]:
    from raymeta.evaluation.run import run_facts

    scores, protocol, folder, scenario = evaluated
    kind = _kind(scenario)
    command = shlex.join(["raymeta", *sys.argv[1:]])
    result = {
        **kind.summarise(scores),
        "scenario": scenario,
        "protocol": protocol,
        "run": run_facts(command, wall_s=time.perf_counter() - started, folds=scores),
    }
    kind.write_report(result, scores, folder)
    return {**result, "report": str(folder)}


def _kind(scenario: str) -> "ScenarioKind":
    from raymeta.evaluation.scenarios.table import SCENARIOS

    return SCENARIOS[scenario]


def render(result: dict[str, Any]) -> Group:
    """What the scenario shows on a terminal, and where the report is."""
    tables, lines = _kind(result["scenario"]).text_tables(result)
    run = result["run"]
    where = (
        f"Report in {result['report']} ({run['wall_s']:.0f} s, "
        f"{run['peak_memory_mb'] / 1000:.1f} GB)."
    )
    return Group(*map(_table, tables), *map(Text, [*lines, where]))


def _table(content: "TextTable") -> Table:
    from raymeta.evaluation.tables import size_text

    table = Table(title=content.title, title_justify="left", header_style="bold")
    table.add_column("")
    for size in content.sizes:
        table.add_column(size_text(size), justify="right")
    for label, cells in content.rows:
        table.add_row(label, *cells, style={"adapted": "bold", "chance": "dim"}.get(label))
    return table


def parse_sizes(text: str | None) -> tuple[int, ...] | None:
    """`20,50,all` as support sizes; `all` is all units but the last."""
    from raymeta.data.episodes import ALL_BUT_LAST

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = [str(ALL_BUT_LAST) if part == "all" else part for part in parts]
    return parse_numbers(",".join(numbers), "--support-sizes")


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
