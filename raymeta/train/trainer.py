"""Ray Train around the outer loop: workers, their all-reduce, storage of checkpoints, resuming.

The loop itself is `raymeta.train.run.train_in_process`; here it is given Ray's seams. Running the
same call again with the same folder goes on from the last checkpoint.
"""

import json
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from raymeta import runtime
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.task_dataset import TaskDataset
from raymeta.errors import RaymetaError
from raymeta.train.checkpoint import FolderCheckpoints
from raymeta.train.loop import Reporter, TrainResult, Worker
from raymeta.train.outer import AllReduce, alone
from raymeta.train.run import Silent, train_in_process
from raymeta.train.run_folder import EXPERIMENT_FILE, claim_folder, exclusive

METRICS_FILE = "metrics.jsonl"
# progress is read from the run's folder so often
POLL_S = 0.2
# worker failures before a run gives up; it resumes from its checkpoint in between
MAX_FAILURES = 2
COLLECTIVE_TIMEOUT_S = 60
# two commands in one folder are refused at once; the workers of a killed one end in seconds
COMMAND_LOCK, WRITER_LOCK = ".command.lock", ".writer.lock"
WRITER_WAIT_S = 30


def fit(
    experiment: ExperimentConfig,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    num_workers: int,
    address: str | None = None,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Trains with Ray Train workers; the artifact is `out_dir/artifact`.

    Args:
        data_dir: what `raymeta prepare` wrote, at a path that every worker can read.
        out_dir: the run's folder, at a path that every worker can write; a run there is resumed.
        address: of a running cluster; one is started for the run if left out.
        reporter: told of each validation, in this process.

    Raises:
        DataError: `data_dir` holds no tasks.
        ConfigError: `out_dir` holds a run with other settings.
        ResourceError: the cluster has fewer CPUs or GPUs than the workers need, or another process
            is training into `out_dir`.
    """
    out = Path(out_dir).absolute()
    TaskDataset.open(data_dir)  # a wrong folder is refused before Ray takes its time to start
    with runtime.session(address) as _cluster:
        use_gpu = _use_gpu(experiment, num_workers)
        needed = {"CPU": num_workers, **({"GPU": num_workers} if use_gpu else {})}
        runtime.require_resources(needed, purpose=f"training with {num_workers} workers")
        claim_folder(out, experiment)  # after the checks: a refused run leaves no folder
        with exclusive(out / COMMAND_LOCK), _Tail(out / METRICS_FILE, reporter or Silent()):
            outcome = _fit_on_ray(
                experiment,
                Path(data_dir).absolute(),
                out,
                num_workers=num_workers,
                use_gpu=use_gpu,
            )
    curve = {int(size): value for size, value in outcome["curve"].items()}
    return TrainResult(outcome["score"], outcome["step"], curve, out / "artifact")


def _fit_on_ray(
    experiment: ExperimentConfig,
    data_dir: Path,
    out: Path,
    *,
    num_workers: int,
    use_gpu: bool,
) -> dict[str, Any]:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to the caller, whose clean-up Ray Train's own answer to it would skip."""

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

    trainer = Trainer(
        _worker,
        train_loop_config={
            "experiment": experiment.model_dump(mode="json"),
            "data_dir": str(data_dir),
            "out": str(out),
        },
        torch_config=TorchConfig(
            backend="nccl" if use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S
        ),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1}
        ),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(out),
            failure_config=FailureConfig(max_failures=MAX_FAILURES, controller_failure_limit=2),
        ),
    )
    try:
        outcome: dict[str, Any] = trainer.fit().return_value
    except WorkerGroupError as error:
        # a person's mistake is one of ours, and reads the same from every worker
        for failure in error.worker_failures.values():
            cause = getattr(failure, "cause", failure)
            if isinstance(cause, RaymetaError):
                raise cause from error
        raise
    return outcome


def _worker(settings: dict[str, Any]) -> dict[str, Any]:
    """One worker's part, in a process that Ray Train started."""
    import ray.train

    torch.set_num_threads(1)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    out = Path(settings["out"])
    writes = exclusive(out / WRITER_LOCK, wait_s=WRITER_WAIT_S) if rank == 0 else nullcontext()
    with writes:
        result = train_in_process(
            ExperimentConfig.parse(settings["experiment"], source=str(out / EXPERIMENT_FILE)),
            Path(settings["data_dir"]),
            reporter=_WorkerReporter(out / METRICS_FILE, rank=rank),
            checkpoints=SharedCheckpoints(FolderCheckpoints(out / "checkpoints"), rank=rank),
            out=out / "artifact",
            worker=Worker(rank, world_size, all_reduce_over(world_size)),
        )
    return {
        "score": result.best_score,
        "step": result.best_step,
        "curve": {str(size): value for size, value in result.curve.items()},
    }


class SharedCheckpoints:
    """Checkpoints in the run's folder: the first worker writes, all read.

    The report that follows each is a barrier, so no worker goes on before it is there.
    """

    def __init__(self, folder: FolderCheckpoints, *, rank: int) -> None:
        self._folder, self._rank = folder, rank

    def latest(self) -> Path | None:
        return self._folder.latest()

    def stage(self, name: str) -> "SharedCheckpoints":
        return SharedCheckpoints(self._folder.stage(name), rank=self._rank)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        if self._rank == 0:
            self._folder.save(step, write)


def all_reduce_over(world_size: int) -> AllReduce:
    """Sums a tensor over the workers of this Ray Train run, by the backend that it was given."""
    if world_size == 1:
        return alone
    import torch.distributed as dist

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"

    def all_reduce(buffer: torch.Tensor) -> None:
        moved = buffer.to(device)
        dist.all_reduce(moved)
        buffer.copy_(moved)

    return all_reduce


def _use_gpu(experiment: ExperimentConfig, num_workers: int) -> bool:
    import ray

    if experiment.training.use_gpu is not None:
        return experiment.training.use_gpu
    return bool(ray.cluster_resources().get("GPU", 0) >= num_workers)


class _WorkerReporter:
    """Tells Ray Train of a validation, and the driver by a line in the run's folder."""

    def __init__(self, path: Path, *, rank: int) -> None:
        self._path, self._rank = path, rank

    def report(self, step: int, metrics: dict[str, float]) -> None:
        import ray.train

        if self._rank == 0:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "metrics": metrics}) + "\n")
        ray.train.report({"step": step, **metrics})


class _Tail:
    """Hands a reporter each line that is added to a metrics file, for the length of a `with`.

    What the reporter raises is raised when the run has ended.
    """

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path, self._reporter = path, reporter
        self._offset = path.stat().st_size if path.is_file() else 0
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "_Tail":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._done.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _follow(self) -> None:
        try:
            while not self._done.wait(POLL_S):
                self._read()
            self._read()
        except BaseException as error:
            self._error = error

    def _read(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _partial = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._reporter.report(entry["step"], entry["metrics"])
