"""A whole run in this process: data in, artifact out. Tune's trials, folds and tests call it."""

from collections.abc import Callable
from pathlib import Path

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.artifact import save_artifact
from raymeta.config.build import build_algorithm
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.models import SequenceConfig
from raymeta.data.task_split import load_task_split
from raymeta.train.checkpoint import CheckpointStore, Position
from raymeta.train.loop import Reporter, TrainResult, Worker, train
from raymeta.train.pretrain import pretrain


class Silent:
    """A reporter that says nothing."""

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Drops the metrics."""


class NoCheckpoints:
    """A store for runs that are quicker to repeat than to resume."""

    def latest(self) -> Path | None:
        return None

    def stage(self, name: str) -> "NoCheckpoints":
        del name
        return self

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keeps nothing."""


def train_in_process(
    experiment: ExperimentConfig,
    data_dir: Path,
    *,
    reporter: Reporter | None = None,
    checkpoints: CheckpointStore | None = None,
    out: Path | None = None,
    worker: Worker | None = None,
) -> TrainResult:
    """Trains and, on the first worker, writes the artifact to `out` if it is given."""
    worker = worker or Worker()
    split = load_task_split(data_dir, experiment.data, parts=("train", "validation"))
    checkpoints = checkpoints or NoCheckpoints()
    pretrained = None
    if isinstance(experiment.model, SequenceConfig):
        stage = checkpoints.stage("pretraining")
        pretrained = pretrain(experiment, split, checkpoints=stage, worker=worker)
    algorithm: MetaAlgorithm = build_algorithm(experiment, split, pretrained=pretrained)
    params, position = train(
        experiment,
        split,
        algorithm,
        reporter=reporter or Silent(),
        checkpoints=checkpoints,
        worker=worker,
    )
    algorithm, params = algorithm.served(params)
    path = None
    if out is not None and worker.rank == 0:
        path = save_artifact(
            out,
            experiment=experiment,
            split=split,
            algorithm=algorithm,
            meta_params=params,
            metrics={
                f"validation_{experiment.scenario.metric}".lower(): position.curve,
                "best_step": position.best_step,
            },
        )
    return result_of(position, path)


def result_of(position: Position, artifact: Path | None) -> TrainResult:
    """The result that a position stands for."""
    curve = {int(size): value for size, value in position.curve.items()}
    return TrainResult(position.best_score, position.best_step, curve, artifact)
