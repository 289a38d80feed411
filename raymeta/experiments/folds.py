"""A model a fold, trained and scored as Ray tasks beside the baselines of the same fold.

Kinds of cells: `model` (an artifact a fold and seed), `adapted` (its scores by user), `alone`
(those of a model for one of several scenarios) and `baselines` (tuned and scored, a fold). Running
the same again computes what is missing. The folder of the cells and the data must be seen by every
node of the cluster.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from raymeta import runtime
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.task_dataset import TaskDataset
from raymeta.data.task_split import load_task_split
from raymeta.errors import ConfigError, DataError, RaymetaError
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.fold import (
    EvaluationSettings,
    FoldScores,
)
from raymeta.evaluation.run import peak_memory_mb
from raymeta.evaluation.scenarios.several import scores_alone
from raymeta.evaluation.scenarios.table import alone_settings, open_scenario
from raymeta.experiments.cells import MODEL_CODE, SCORING_CODE, Cell, CellStore, code_version
from raymeta.experiments.training import train_fold
from raymeta.types import Params

Fit = Callable[[ExperimentConfig, Path, Path], tuple[Adapts, Params]]
"""Trains on (experiment, data folder) into a folder, or loads what is there, and returns it."""


@dataclass(frozen=True)
class FoldJob:
    """One task for Ray: the baselines of a fold, or one model of it.

    Attributes:
        experiment: with the fold and the seed set.
        data_dir: absolute.
        dataset_sha256: of the data set that is there.
        cells: absolute folder of the cells.
        kind: `baselines`; `adapted`; or `alone`, for a model of one of several scenarios.
    """

    experiment: ExperimentConfig
    data_dir: Path
    dataset_sha256: str
    cells: Path
    settings: EvaluationSettings
    kind: str

    @property
    def label(self) -> str:
        """For people, e.g. `fold2` or `fold2-seed0`."""
        fold = f"fold{self.experiment.data.split.fold}"
        return fold if self.kind == "baselines" else f"{fold}-seed{self.experiment.seed}"


def plan(
    experiment: ExperimentConfig,
    data_dir: Path,
    settings: EvaluationSettings,
    *,
    cells: Path,
    num_folds: int,
    seeds: Sequence[int],
) -> list[FoldJob]:
    """The jobs of an evaluation: for each fold its models, then its baselines.

    One fold is the experiment's own; several divide all users.

    Raises:
        ConfigError: folds of a time split, which has one.
        DataError: there is no whole task folder in `data_dir`.
    """
    dataset = str(TaskDataset.open(data_dir).manifest["dataset_sha256"])
    data_dir, cells = data_dir.resolve(), cells.resolve()
    jobs = []
    for variant in _fold_variants(experiment, num_folds):
        for seed in seeds:
            one = variant.model_copy(update={"seed": seed})
            jobs.append(FoldJob(one, data_dir, dataset, cells, settings, "adapted"))
            for alone in one.alone():
                own = alone_settings(alone, settings)
                jobs.append(FoldJob(alone, data_dir, dataset, cells, own, "alone"))
        jobs.append(FoldJob(variant, data_dir, dataset, cells, settings, "baselines"))
    return jobs


def run_jobs(
    jobs: Sequence[FoldJob],
    *,
    address: str | None = None,
    fit: Fit = train_fold,
    note: Callable[[str], None] = lambda _: None,
) -> list[FoldScores]:
    """Runs what is not there yet on Ray, and returns the scores of all jobs in their order.

    Args:
        address: of a running cluster; one is started on this machine if it is needed and not given.
        fit: how a model is trained; it must be importable on the cluster.
        note: told when a job is done.

    Raises:
        RaymetaError: what the first failing job raised; jobs that were done stay done.
    """
    cells = [job_cell(job) for job in jobs]
    missing = [
        job
        for job, cell in zip(jobs, cells, strict=True)
        if CellStore(job.cells).find(cell) is None
    ]
    note(f"{len(jobs) - len(missing)} of {len(jobs)} cells are there already")
    if missing:
        with runtime.session(address):
            _run_on_ray(missing, fit, note)
    found = [CellStore(job.cells).find(cell) for job, cell in zip(jobs, cells, strict=True)]
    if lost := [cell.name for cell, path in zip(cells, found, strict=True) if path is None]:
        raise DataError(
            f"Cell {lost[0]} was computed, but is not in {jobs[0].cells}.",
            remedy="Use a folder that every node of the cluster shares.",
        )
    return [FoldScores.read(path) for path in found if path is not None]


def job_cell(job: FoldJob) -> Cell:
    """The cell that holds a job's scores."""
    settings = asdict(job.settings)
    key: dict[str, Any] = {"settings": settings, "dataset": job.dataset_sha256}
    if job.kind == "baselines":
        decides = _decides(job.experiment)
        key["data"], key["scenario"] = decides["data"], decides["scenario"]
        key["code"] = code_version(*SCORING_CODE)
    else:
        del settings["baselines"]
        key["experiment"] = _decides(job.experiment)
        key["code"] = code_version(*SCORING_CODE, *MODEL_CODE)
    return Cell(job.kind, job.label, key)


def model_cell(job: FoldJob) -> Cell:
    """The cell that holds the model which a job scores; other support sizes need no other one."""
    key = {
        "experiment": _decides(job.experiment),
        "dataset": job.dataset_sha256,
        "code": code_version(*MODEL_CODE),
    }
    return Cell("model", job.label, key)


def compute_job(job: FoldJob, fit: Fit) -> None:
    """Fills a job's cell in this process."""
    torch.set_num_threads(1)  # jobs share the machine's cores; Ray deals them out
    store = CellStore(job.cells)
    if job.kind == "baselines":
        store.compute(job_cell(job), lambda folder: _write_baselines(job, folder))
    else:
        store.compute(job_cell(job), lambda folder: _write_adapted(job, fit, folder))


def _write_baselines(job: FoldJob, folder: Path) -> None:
    split = load_task_split(job.data_dir, job.experiment.data)
    scenario = open_scenario(job.experiment, split)
    scores = scenario.score_baselines(job.settings, note=lambda _: None)
    scores.facts["fold"] = job.experiment.data.split.fold
    scores.facts["peak_memory_mb"] = peak_memory_mb()
    scores.write(folder)


def _write_adapted(job: FoldJob, fit: Fit, folder: Path) -> None:
    model = CellStore(job.cells).compute(
        model_cell(job), lambda partial: _ignore(fit(job.experiment, job.data_dir, partial))
    )
    algorithm, meta_params = fit(job.experiment, job.data_dir, model)
    split = load_task_split(job.data_dir, job.experiment.data)
    scenario = open_scenario(job.experiment, split)
    scores = scenario.score_adapted(algorithm, meta_params, job.settings)
    if job.kind == "alone":
        scores = scores_alone(job.experiment.scenario.name, scores)
    scores.facts["peak_memory_mb"] = peak_memory_mb()
    scores.write(folder)


def _run_on_ray(jobs: Sequence[FoldJob], fit: Fit, note: Callable[[str], None]) -> None:
    import ray
    from ray.exceptions import RayTaskError

    runtime.require_resources({"CPU": 1}, purpose="A fold")
    remote = ray.remote(num_cpus=1, max_retries=2)(compute_job)
    pending = {remote.remote(job, fit): job for job in jobs}
    try:
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            ray.get(done)
            note(f"{job.kind} {job.label} done, {len(pending)} to go")
    except RayTaskError as error:
        # the error as it was raised, so that its remedy and exit code are what the user gets
        if isinstance(error.cause, RaymetaError):
            raise error.cause from None
        raise
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def _fold_variants(experiment: ExperimentConfig, num_folds: int) -> list[ExperimentConfig]:
    if num_folds == 1:
        return [experiment]
    if experiment.data.split.kind == "time":
        raise ConfigError(
            f"A time split has one fold, not {num_folds}.", remedy="Leave --folds out."
        )
    variants = []
    for fold in range(num_folds):
        split = experiment.data.split.model_copy(update={"num_folds": num_folds, "fold": fold})
        data = experiment.data.model_copy(update={"split": split})
        variants.append(experiment.model_copy(update={"data": data}))
    return variants


def _decides(experiment: ExperimentConfig) -> dict[str, Any]:
    """The settings that decide a model: not its name, nor where its data lies or who computes."""
    values = experiment.model_dump(mode="json")
    del values["name"], values["data"]["path"]
    del values["training"]["num_workers"], values["training"]["use_gpu"]
    return values


def _ignore(_: object) -> None:
    """Discards a result that the folder holds already."""
