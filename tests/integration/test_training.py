"""Real Ray Train workers: their sum is one worker's, and one that dies costs time and nothing else.

Two workers, gloo between them, on a shop small enough that starting them is what takes the time.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raymeta import runtime
from raymeta.errors import ResourceError
from raymeta.train.outer import mean_over_tasks
from raymeta.train.trainer import fit
from raymeta.types import Examples, TaskBatch
from tests.helpers.runs import long_run, parameters
from tests.helpers.shops import write_grouped_shop

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[runtime.Cluster]:
    with runtime.session(num_cpus=2) as started:
        yield started


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grouped_shop(tmp_path_factory.mktemp("data") / "shop")


def test_more_workers_than_cpus_are_refused_and_leave_no_folder(
    cluster: runtime.Cluster, shop: Path, tmp_path: Path
) -> None:
    experiment = long_run(max_outer_steps=2)
    with pytest.raises(ResourceError) as caught:
        fit(experiment, shop, tmp_path / "out", num_workers=64)
    assert str(caught.value) == (
        "training with 64 workers: 64 CPU needed, the cluster has 2. "
        "Ask for less, or connect to a cluster with more CPU."
    )
    assert not (tmp_path / "out").exists()


def make_in_float64():
    """Nested, as what follows: so it travels to the workers by value, who cannot import tests."""

    def in_float64(experiment, split):
        """The learner of an experiment with all its tables, and so its parameters, in float64."""
        from raymeta.config.build import build_algorithm, restore_algorithm

        tables = build_algorithm(experiment, split).tables()
        doubles = {n: t.double() if t.is_floating_point() else t for n, t in tables.items()}
        return restore_algorithm(
            experiment, doubles, item_vocab=split.catalogue.vocab, user_vocab=split.user_vocab
        )

    return in_float64


def make_first_step(in_float64):
    def first_step(settings: dict[str, Any]) -> None:
        """The outer loop itself, for one step in float64, writing down what went in and out."""
        from pathlib import Path

        import ray.train
        import torch

        from raymeta.config.experiment import ExperimentConfig
        from raymeta.data.task_split import load_task_split
        from raymeta.train.loop import Worker, train
        from raymeta.train.run import NoCheckpoints, Silent
        from raymeta.train.trainer import all_reduce_over
        from raymeta.types import TaskBatch

        context = ray.train.get_context()
        rank, world_size = context.get_world_rank(), context.get_world_size()
        experiment = ExperimentConfig.parse(settings["experiment"], source="test")
        split = load_task_split(settings["data_dir"], experiment.data)
        algorithm = in_float64(experiment, split)
        batches, buffers = [], []
        meta_gradient, sum_over_workers = algorithm.meta_gradient, all_reduce_over(world_size)

        def noting_batch(params, batch, **options):
            # rounding in float32 depends on how long the padding is
            batch = TaskBatch(
                *(
                    {n: t.double() if t.is_floating_point() else t for n, t in part.items()}
                    for part in (batch.support, batch.query)
                )
            )
            batches.append(batch)
            return meta_gradient(params, batch, **options)

        def noting_sum(buffer):
            sum_over_workers(buffer)
            buffers.append(buffer.clone())

        object.__setattr__(algorithm, "meta_gradient", noting_batch)
        train(
            experiment,
            split,
            algorithm,
            reporter=Silent(),
            checkpoints=NoCheckpoints(),
            worker=Worker(rank, world_size, noting_sum),
        )
        (batch,) = batches
        gradient = max(buffers, key=torch.numel)  # the others are sums of scores
        path = Path(settings["out"]) / f"rank-{rank}.pt"
        torch.save((batch.support, batch.query, gradient), path)

    return first_step


def test_two_workers_give_the_gradient_of_one_with_both_shards(
    cluster: runtime.Cluster, shop: Path, tmp_path: Path
) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from raymeta.data.task_split import load_task_split
    from raymeta.seeding import torch_generator

    experiment = long_run(max_outer_steps=1)
    TorchTrainer(
        make_first_step(make_in_float64()),
        train_loop_config={
            "experiment": experiment.model_dump(mode="json"),
            "data_dir": str(shop),
            "out": str(tmp_path),
        },
        torch_config=TorchConfig(backend="gloo", timeout_s=60),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="gradient", storage_path=str(tmp_path)),
    ).fit()
    support, query, gradients = zip(
        *(torch.load(tmp_path / f"rank-{rank}.pt") for rank in (0, 1)), strict=True
    )
    algorithm = make_in_float64()(experiment, load_task_split(shop, experiment.data))
    both = TaskBatch(together(support), together(query))
    params = algorithm.init(torch_generator(experiment.seed, "init"))
    buffers: list[torch.Tensor] = []
    mean_over_tasks(algorithm.meta_gradient(params, both), buffers.append)
    (alone,) = buffers
    assert torch.equal(gradients[0], gradients[1])
    assert gradients[0].dtype == torch.float64
    assert both.num_tasks == experiment.training.tasks_per_batch
    assert float(alone.abs().max()) > 0.1, "a gradient of zeros is equal to anything"
    difference = float((gradients[0] - alone).norm() / alone.norm())
    print(f"relative difference of the meta-gradient: {difference:.1e}")
    assert difference < 1e-12


def together(parts: tuple[Examples, ...]) -> Examples:
    """The tasks of all workers as one batch, padded to the longest."""
    width = {name: max(part[name].shape[1] for part in parts) for name in parts[0]}
    return {
        name: torch.cat(
            [torch.nn.functional.pad(p[name], (0, width[name] - p[name].shape[1])) for p in parts]
        )
        for name in parts[0]
    }


class KillWorker:
    """Kills one of the run's two worker processes when a step is reported, and notes all it saw."""

    def __init__(self, *, at_step: int) -> None:
        self.at_step = at_step
        self.killed = 0
        self.pids: set[int] = set()
        self.steps: list[int] = []

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)
        if not self.pids or (self.killed and len(self.pids) < 4):
            self.pids |= worker_pids()
        if step == self.at_step and not self.killed:
            self.killed = max(self.pids)
            os.kill(self.killed, signal.SIGKILL)


def worker_pids() -> set[int]:
    """The processes of Ray Train's workers, as Ray itself names them."""
    import ray
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address
    mine = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
    return {actor.pid for actor in list_actors(address, filters=mine, timeout=120)}


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(
    cluster: runtime.Cluster, shop: Path, tmp_path: Path
) -> None:
    experiment = long_run(max_outer_steps=100)
    undisturbed = fit(experiment, shop, tmp_path / "undisturbed", num_workers=2)
    kill = KillWorker(at_step=10)
    disturbed = fit(experiment, shop, tmp_path / "disturbed", num_workers=2, reporter=kill)
    assert kill.killed
    assert len(kill.pids) == 4, "a second pair of workers went on"
    assert kill.steps[-1] == 100
    assert disturbed.curve == undisturbed.curve
    assert disturbed.best_step == undisturbed.best_step
    expected, found = (parameters(r.artifact_path) for r in (undisturbed, disturbed))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
