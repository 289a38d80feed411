"""A trial of several workers: a Ray Train run inside the trial, its reports passed on to Tune."""

from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback

from raymeta.config.experiment import ExperimentConfig
from raymeta.tune.records import TrialFolder
from raymeta.tune.space import STEP
from raymeta.tune.trial import TrialPlan, noted


def run_nested(experiment: ExperimentConfig, plan: TrialPlan, folder: TrialFolder) -> None:
    """Trains with `plan.workers` workers; the trial's own process only waits."""
    from raymeta.train.trainer import fit

    fit(
        experiment,
        plan.data_dir,
        folder.path / "train",
        num_workers=plan.workers,
        address=plan.address,
        callbacks=[_Notes(folder)],
    )


class _Notes(TuneReportCallback):  # type: ignore[misc]
    """Runs in Train's controller: notes a validation in the trial's folder, then tells Tune."""

    def __init__(self, folder: TrialFolder) -> None:
        super().__init__()
        self._folder = folder

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any | None
    ) -> None:
        own = metrics[0]  # every rank reports the same
        super().after_report(run_context, [noted(self._folder, int(own[STEP]), own)], checkpoint)
