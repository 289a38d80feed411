"""The outer loop of one worker, without Ray: reports and checkpoints go to seams it is given."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raymeta.algorithms.base import MetaAlgorithm
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import AdaptationError
from raymeta.evaluation.scenarios.base import Scenario, Sums
from raymeta.evaluation.scenarios.table import open_scenario
from raymeta.seeding import derive_seed, torch_generator
from raymeta.train.batches import EpisodeSampler
from raymeta.train.checkpoint import (
    CheckpointStore,
    Position,
    read_checkpoint,
    write_checkpoint,
)
from raymeta.train.outer import AllReduce, OuterOptimizer, alone, mean_over_tasks, sums
from raymeta.types import Params


class Reporter(Protocol):
    """Told of each validation; may raise to end the run."""

    def report(self, step: int, metrics: dict[str, float]) -> None: ...


@dataclass(frozen=True)
class TrainResult:
    """The best validation of a run, and the artifact made from it."""

    best_score: float
    best_step: int
    curve: dict[int, float]
    artifact_path: Path | None


@dataclass(frozen=True)
class Worker:
    """Which part of the work this process does, and how it sums with the others."""

    rank: int = 0
    world_size: int = 1
    all_reduce: AllReduce = alone


def train(
    experiment: ExperimentConfig,
    split: TaskSplit,
    algorithm: MetaAlgorithm,
    *,
    reporter: Reporter,
    checkpoints: CheckpointStore,
    worker: Worker,
) -> tuple[Params, Position]:
    """Runs until the steps are done or validation has stopped improving.

    Returns:
        The best meta-parameters and where the run stands; the same on every worker.
    """
    config = experiment.training
    params = algorithm.init(torch_generator(experiment.seed, "init"))
    position, best = Position(), {n: p.clone() for n, p in params.items()}
    optimizer = OuterOptimizer(params, config)
    checkpoint = checkpoints.latest()
    if checkpoint is not None:
        position, saved, best, state = read_checkpoint(checkpoint)
        for name, value in saved.items():
            params[name].copy_(value)
        optimizer.load(state)
    scenario = open_scenario(experiment, split)
    sampler = EpisodeSampler(
        split.train.shard(worker.rank, worker.world_size),
        scenario,
        support_sizes=experiment.data.support_sizes,
        tasks_per_batch=max(1, config.tasks_per_batch // worker.world_size),
        seed=derive_seed(experiment.seed, "worker", worker.rank, worker.world_size),
    )
    mine = split.validation.shard(worker.rank, worker.world_size)
    validate = _validation(experiment, scenario, mine, worker)

    def judge(metrics: dict[str, float]) -> None:
        curve = validate(algorithm, params)
        score = sum(curve.values()) / len(curve)
        if score > position.best_score:
            position.best_score, position.best_step, position.stale = score, position.step, 0
            position.curve = {str(size): value for size, value in curve.items()}
            best.update({n: p.clone() for n, p in params.items()})
        else:
            position.stale += 1
        checkpoints.save(
            position.step,
            lambda folder: write_checkpoint(folder, position, params, best, optimizer.state()),
        )
        named = {f"curve/{size}": value for size, value in curve.items()}
        reporter.report(position.step, {**metrics, **named, "score": score})

    if checkpoint is None:
        judge({})
    losses: list[float] = []
    started_s, since = time.monotonic(), position.step
    while position.step < config.max_outer_steps and position.stale < config.patience:
        local = algorithm.meta_gradient(
            params, sampler.batch(position.step), outer_step=position.step
        )
        gradients, loss = mean_over_tasks(local, worker.all_reduce)
        if math.isnan(loss):
            raise AdaptationError(
                f"The query loss is not a number at outer step {position.step}.",
                remedy="Lower algorithm.inner_lr or training.outer_lr.",
            )
        optimizer.step(gradients)
        position.step += 1
        losses.append(loss)
        if position.step % config.validate_every == 0 or position.step == config.max_outer_steps:
            users = (position.step - since) * config.tasks_per_batch
            speed = users / max(1e-9, time.monotonic() - started_s)
            judge({"loss": sum(losses) / len(losses), "users_per_s": speed})
            losses, started_s, since = [], time.monotonic(), position.step
    return best, position


def _validation(
    experiment: ExperimentConfig, scenario: Scenario, mine: UserTasks, worker: Worker
) -> Callable[[MetaAlgorithm, Params], dict[int, float]]:
    """The curve over the validation users of all workers: support size -> mean of the metric."""
    sizes = experiment.data.support_sizes
    measure = scenario.validation(mine, sizes)

    def curve(algorithm: MetaAlgorithm, params: Params) -> dict[int, float]:
        found = measure(*algorithm.served(params))
        nothing = Sums(0.0, 0.0)
        flat = [found.get(s, nothing).total for s in sizes]
        flat += [found.get(s, nothing).weight for s in sizes]
        summed = sums(flat, worker.all_reduce)
        means = zip(sizes, summed[: len(sizes)], summed[len(sizes) :], strict=True)
        return {s: t / n for s, t, n in means if n > 0}

    return curve
