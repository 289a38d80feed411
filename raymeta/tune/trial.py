"""One trial: the same training function, with other values, told to Tune as it goes.

A trial of one worker trains in its own process, since a nested Ray Train run costs more than a
short training. Leaves what varies to `tune.space`, and the whole sweep to `tune.sweep`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from raymeta.config.experiment import ExperimentConfig
from raymeta.config.sweep import experiment_with
from raymeta.tune.records import TrialFolder
from raymeta.tune.space import METRIC, STEP

if TYPE_CHECKING:  # torch is loaded by the trials only
    from raymeta.train.checkpoint import CheckpointStore
    from raymeta.train.loop import Reporter, TrainResult

SCORE = "score"
"""The key of a validation's score among the metrics that a training reports."""


class Train(Protocol):
    """The training function: `raymeta.train.run.train_in_process`, or a test's own."""

    def __call__(
        self,
        experiment: ExperimentConfig,
        data_dir: Path,
        *,
        reporter: "Reporter",
        checkpoints: "CheckpointStore",
        out: Path | None,
    ) -> "TrainResult": ...


@dataclass(frozen=True)
class TrialPlan:
    """What every trial of a sweep shares.

    Attributes:
        base: the experiment that values are replaced in.
        data_dir: the prepared data set.
        sweep_dir: the sweep's folder; a trial keeps its records there.
        workers: 1 trains in process, more through a nested Ray Train run.
        train: in place of raymeta's own training, for trials of one worker.
    """

    base: ExperimentConfig
    data_dir: Path
    sweep_dir: Path
    workers: int = 1
    train: Train | None = None


def trainable(plan: TrialPlan) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls for each trial."""

    def run(values: dict[str, Any]) -> None:
        from ray import tune

        folder = TrialFolder(plan.sweep_dir, tune.get_context().get_trial_id())
        folder.start(values)
        experiment = experiment_with(plan.base, values, source=f"trial {folder.path.name}")
        train_trial(experiment, plan, folder, TuneReporter(folder, tune.report))
        folder.end("finished")

    return run


def train_trial(
    experiment: ExperimentConfig,
    plan: TrialPlan,
    folder: TrialFolder,
    reporter: "Reporter",
    *,
    out: Path | None = None,
) -> Path | None:
    """Trains a trial from where its folder stands to its end.

    Args:
        out: the artifact's folder, for a trial of one worker; with more, each writes one.

    Returns:
        The artifact, if one was written.
    """
    if plan.workers > 1:
        from raymeta.train.trainer import fit

        return fit(
            experiment,
            plan.data_dir,
            folder.path / "train",
            num_workers=plan.workers,
            reporter=reporter,
        ).artifact_path
    from raymeta.train.checkpoint import FolderCheckpoints
    from raymeta.train.run import train_in_process

    train = plan.train if plan.train is not None else train_in_process
    return train(
        experiment,
        plan.data_dir,
        reporter=reporter,
        checkpoints=FolderCheckpoints(folder.checkpoints_dir),
        out=out,
    ).artifact_path


class TuneReporter:
    """Notes each validation in the trial's folder, and reports it to Tune.

    Tune ends a trial from inside `report`, by ending its thread.
    """

    def __init__(self, folder: TrialFolder, report: Callable[[dict[str, Any]], None]) -> None:
        self._folder = folder
        self._report = report

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self._report(noted(self._folder, step, metrics))


def noted(folder: TrialFolder, step: int, metrics: dict[str, float]) -> dict[str, Any]:
    """What Tune is told of a validation, after it is in the trial's folder."""
    plain = {key: float(value) for key, value in metrics.items() if key not in (STEP, SCORE)}
    best = folder.add(step, float(metrics[SCORE]), plain)
    return {STEP: step, SCORE: float(metrics[SCORE]), METRIC: best}
