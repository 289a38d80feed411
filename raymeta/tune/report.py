"""What a sweep found: the table's rows, the picture, and the experiment file of the best trial."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from raymeta.config.experiment import ExperimentConfig
from raymeta.config.sweep import SweepConfig
from raymeta.errors import RaymetaError
from raymeta.tune.records import TrialRecord

_PANEL_INCHES = (4.2, 3.6)
_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5fd3", "#c77d0a", "#5c5c5c")


def write_report(
    out: Path,
    *,
    sweep: SweepConfig,
    trials: Sequence[TrialRecord],
    best: ExperimentConfig,
    sweep_file: str,
) -> dict[str, Path]:
    """Writes `trials.json`, `score.png` and `best.yaml` into `out`; returns their paths."""
    scored = [trial for trial in trials if trial.best_score is not None]
    if not scored:
        raise RaymetaError("No trial has a score.", remedy="See trials/ for what each one did.")
    table = out / "trials.json"
    table.write_text(json.dumps([asdict(t) for t in trials], indent=2) + "\n", encoding="utf-8")
    picture = out / "score.png"
    draw(picture, sweep=sweep, trials=scored)
    experiment = out / "best.yaml"
    experiment.write_text(
        experiment_file(
            best, sweep=sweep, trial=scored[0], num_trials=len(trials), sweep_file=sweep_file
        ),
        encoding="utf-8",
    )
    return {"table": table, "picture": picture, "experiment": experiment}


def experiment_file(
    best: ExperimentConfig,
    *,
    sweep: SweepConfig,
    trial: TrialRecord,
    num_trials: int,
    sweep_file: str,
) -> str:
    """The best trial as a complete experiment file, with a header that says where it is from."""
    values = ", ".join(f"{path}={shown(value)}" for path, value in trial.values.items())
    header = [
        f"# The best of {num_trials} trials of the sweep {sweep.name}.",
        f"# Values: {values}; from {sweep_file}.",
        f"# Score on validation users: {trial.best_score:.4f} at outer step {trial.best_step}, "
        f"trial {trial.trial_id}.",
        f"# Data: {best.data.path or 'named with --data'}",
        "# Run:  raymeta train THIS_FILE --data DIR --out DIR",
    ]
    body = best.model_dump(mode="json")
    body["name"] = f"{sweep.name}-best"
    return "\n".join([*header, "", yaml.safe_dump(body, sort_keys=False, allow_unicode=True)])


def draw(path: Path, *, sweep: SweepConfig, trials: Sequence[TrialRecord]) -> None:
    """Score against each value that varied: a panel a value, a colour a choice.

    Trials that were stopped early are hollow: their score is what they had reached. The best
    trial carries its score and, in each panel, its value.
    """
    import matplotlib as mpl

    mpl.use("Agg", force=False)  # there may be no display
    from matplotlib.figure import Figure

    paths = list(sweep.vary)
    groups = _groups(sweep, trials)
    figure = Figure(figsize=(_PANEL_INCHES[0] * len(paths), _PANEL_INCHES[1]), layout="constrained")
    panels = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, paths, strict=True):
        _draw_panel(panel, name, sweep=sweep, trials=trials, groups=groups)
    panels[0].set_ylabel("score on validation users")
    if len(groups) > 1:
        panels[-1].legend(frameon=False, fontsize=8, loc="best")
    figure.suptitle(f"{sweep.name}: {len(trials)} trials (hollow: ended early)", fontsize=11)
    figure.savefig(path, dpi=150)


def shown(value: Any) -> str:
    """A value as a person would write it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _groups(sweep: SweepConfig, trials: Sequence[TrialRecord]) -> dict[str, str]:
    """Label -> colour, one for each value of the first choice that varies; or one for all."""
    name = _choice_path(sweep)
    if name is None:
        return {"": _COLOURS[0]}
    labels = sorted({shown(trial.values[name]) for trial in trials})
    return {label: _COLOURS[n % len(_COLOURS)] for n, label in enumerate(labels)}


def _choice_path(sweep: SweepConfig) -> str | None:
    return next((path for path, way in sweep.vary.items() if way.choice is not None), None)


def _draw_panel(
    panel: Any,
    name: str,
    *,
    sweep: SweepConfig,
    trials: Sequence[TrialRecord],
    groups: Mapping[str, str],
) -> None:
    way, choice = sweep.vary[name], _choice_path(sweep)
    positions = None
    if way.choice is not None:
        labels = [shown(value) for value in way.choice]
        positions = {label: n for n, label in enumerate(labels)}
        panel.set_xticks(range(len(labels)), labels)
        panel.set_xlim(-0.5, len(labels) - 0.5)
    elif way.is_log:
        panel.set_xscale("log")

    def x_of(trial: TrialRecord) -> float:
        value = trial.values[name]
        return float(positions[shown(value)] if positions is not None else value)

    for label, colour in groups.items():
        own = [t for t in trials if choice is None or shown(t.values[choice]) == label]
        for ended, fill in (("finished", colour), ("stopped early", "none")):
            some = [t for t in own if (t.ending == "finished") == (ended == "finished")]
            panel.scatter(
                [x_of(t) for t in some],
                [t.best_score for t in some],
                s=34,
                facecolors=fill,
                edgecolors=colour,
                label=label if ended == "finished" else None,
            )
    best = trials[0]
    panel.scatter([x_of(best)], [best.best_score], s=150, facecolors="none", edgecolors="black")
    panel.annotate(
        f"best: {shown(best.values[name])}",
        (x_of(best), best.best_score),
        xytext=(0, 12),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    panel.margins(y=0.18)
    panel.set_xlabel(name)
    panel.spines[["top", "right"]].set_visible(False)
