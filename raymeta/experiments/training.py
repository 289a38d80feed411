"""How a fold's model is made: trained in this process into a folder, or loaded from there."""

import shutil
from pathlib import Path

from raymeta.artifact import load_artifact
from raymeta.config.experiment import ExperimentConfig
from raymeta.evaluation.adapted import Adapts
from raymeta.train.checkpoint import FolderCheckpoints
from raymeta.train.run import train_in_process
from raymeta.types import Params

ARTIFACT, CHECKPOINTS = "artifact", "checkpoints"


def train_fold(experiment: ExperimentConfig, data_dir: Path, folder: Path) -> tuple[Adapts, Params]:
    """The model of `experiment`, from `folder/artifact` if it is whole, else trained into it.

    Training that was interrupted goes on from its last checkpoint in `folder`.
    """
    path, checkpoints = folder / ARTIFACT, folder / CHECKPOINTS
    if not path.is_dir():  # it gets its name when it is whole
        train_in_process(experiment, data_dir, checkpoints=FolderCheckpoints(checkpoints), out=path)
    shutil.rmtree(checkpoints, ignore_errors=True)
    artifact = load_artifact(path)
    return artifact.algorithm, artifact.meta_params
