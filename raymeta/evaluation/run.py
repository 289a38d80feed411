"""An artifact scored on the users of its own test fold, and the facts of a run that reports state.

How an artifact is loaded, and how a report is shown, is the caller's business.
"""

import importlib.metadata
import platform
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import raymeta
from raymeta.config.data import DataConfig
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import SupportView
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.errors import ArtifactError, DataError
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.fold import (
    EvaluationSettings,
    FoldScores,
    refuse_known_users,
)
from raymeta.evaluation.scenarios.table import open_scenario
from raymeta.types import Params

TRAIN_USERS = "train_users"
"""The artifact's record of whom it was trained on: short hashes of user ids."""

_PACKAGES = ("torch", "numpy", "scipy", "pandas")


class TrainedModel(Protocol):
    """What evaluation reads of an artifact."""

    @property
    def experiment(self) -> ExperimentConfig: ...
    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def view(self) -> SupportView: ...
    @property
    def algorithm(self) -> Adapts: ...
    @property
    def meta_params(self) -> Params: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...


def evaluate_artifact(
    artifact: TrainedModel,
    data_dir: str | Path,
    settings: EvaluationSettings,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> list[FoldScores]:
    """Scores the artifact and the baselines on the artifact's own test users, or the locked ones.

    Args:
        artifact: as `raymeta.artifact.load_artifact` gives it.
        data_dir: the folder that `raymeta prepare` wrote.
        settings: support sizes, their unit, baselines.
        note: told what is being done.

    Raises:
        DataError: the data is not what the artifact was trained on.
        LeakageError: a test user was used in training.
    """
    note("Reading users")
    split = load_task_split(data_dir, artifact.experiment.data)
    if settings.locked:
        split = replace(split, test=split.locked, locked=split.test)
    require_same_catalogue(artifact, split)
    if TRAIN_USERS not in artifact.manifest:
        raise ArtifactError(
            "The artifact does not record whom it was trained on.",
            remedy="Train it again with this release.",
        )
    refuse_known_users(split, artifact.manifest[TRAIN_USERS])
    note("Adapting to the test users")
    scenario = open_scenario(artifact.experiment, split)
    ours = scenario.score_adapted(artifact.algorithm, artifact.meta_params, settings)
    return [ours, scenario.score_baselines(settings, note=note)]


def require_same_catalogue(artifact: TrainedModel, split: TaskSplit) -> None:
    """Raises `DataError` unless the data gives the artifact's own catalogue."""
    if artifact.catalogue.item_ids == split.catalogue.item_ids:
        return
    raise DataError(
        f"This data gives a catalogue of {len(split.catalogue)} items, and the artifact has "
        f"{len(artifact.catalogue)}, not the same ones.",
        remedy="Give the data set that the artifact was trained on, or train on this one.",
    )


def protocol_facts(
    data: DataConfig, settings: EvaluationSettings, *, name: str, folds: int, seeds: int = 1
) -> dict[str, Any]:
    """What was measured, in words and values."""
    if settings.locked:
        split = "Test users are those kept aside for a release"
    elif data.split.kind == "time":
        split = f"Test users are those whose first event is at or after {data.split.boundary}"
    elif folds == 1:
        split = f"Test users are fold {data.split.fold} of {data.split.num_folds}"
    else:
        split = f"Every user is a test user once, over {folds} folds"
    if seeds > 1:
        split += f"; means over {seeds} seeds"
    return {
        "name": name,
        "unit": settings.unit,
        "repeat": settings.repeat,
        "positive_events": list(data.positive_events),
        "min_item_users": data.min_item_users,
        "min_units": data.min_units,
        "split": split,
        "folds": folds,
        "seeds": seeds,
    }


def run_facts(command: str, *, wall_s: float, folds: list[FoldScores]) -> dict[str, Any]:
    """How the result was made: command, time, memory of the largest process, versions."""
    recorded = [float(fold.facts.get("peak_memory_mb", 0.0)) for fold in folds]
    return {
        "command": command,
        "wall_s": round(wall_s, 1),
        "peak_memory_mb": round(max([peak_memory_mb(), *recorded]), 1),
        "versions": {
            "raymeta": raymeta.__version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }


def peak_memory_mb() -> float:
    """The largest resident size that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
