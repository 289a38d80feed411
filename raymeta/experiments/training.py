"""How a fold's model is made: trained in this process into a folder, or loaded from there."""

from pathlib import Path

from raymeta.config.experiment import ExperimentConfig
from raymeta.evaluation.adapted import Adapts
from raymeta.types import Params

ARTIFACT = "artifact"


def train_fold(experiment: ExperimentConfig, data_dir: Path, folder: Path) -> tuple[Adapts, Params]:
    """The model of `experiment`, from `folder/artifact` if it is whole, else trained into it."""
    # imported here, since cells of baselines need neither
    from raymeta.artifact import load_artifact
    from raymeta.train.run import train_in_process

    path = folder / ARTIFACT
    if not (path / "manifest.json").is_file():
        train_in_process(experiment, data_dir, out=path)
    artifact = load_artifact(path)
    return artifact.algorithm, artifact.meta_params
