"""A tiny artifact, made by the real training on a generated shop."""

from pathlib import Path

from raymeta.config.algorithms import AnilConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.train.run import train_in_process
from tests.helpers.shops import SHOP, write_grouped_shop


def tiny_artifact(path: Path, *, seed: int = 0) -> Path:
    """Trains on 120 users and 40 items for a few steps; about a second."""
    data = write_grouped_shop(path.with_name(f"{path.name}-data"), seed=seed)
    experiment = ExperimentConfig(
        name="tiny",
        seed=seed,
        data=SHOP,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=AnilConfig(inner_lr=1.0, num_inner_steps=2),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=4, validate_every=2),
    )
    train_in_process(experiment, data, out=path)
    return path
