"""A whole sweep: started or resumed, its failures raised, its best trial made an artifact.

    OUT/sweep.json            what is searched; the same command again goes on with it
    OUT/trials/               a folder a trial (`tune.records`)
    OUT/ray/                  Ray Tune's own state: pickled, so never taken from a stranger
    OUT/trials.json  score.png  best.yaml    written at the end; the artifact is in the best
                                              trial's own folder, since a retry may change which

Leaves the table and the picture to `tune.report`.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymeta import runtime
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.sweep import SweepConfig, experiment_with
from raymeta.errors import ConfigError, DataError, RaymetaError
from raymeta.tune import records, space
from raymeta.tune.records import TrialFolder, TrialRecord
from raymeta.tune.trial import Train, TrialPlan, train_trial, trainable

_ALONE = {"cpu": 1}
# A trial that only waits for its workers must not take a CPU from them, and Tune insists on
# something.
_WAITING = {"cpu": 0, "memory": 1 << 20}


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended.

    Attributes:
        trials: best first.
        best: the experiment with the best trial's values.
        artifact: the best trial's, trained to its end.
    """

    trials: list[TrialRecord]
    best: ExperimentConfig
    artifact: Path


def run_sweep(
    sweep: SweepConfig,
    base: ExperimentConfig,
    *,
    data_dir: Path,
    out: Path,
    address: str | None = None,
    num_cpus: int | None = None,
    train: Train | None = None,
) -> SweepResult:
    """Runs a sweep, or goes on with the one that `out` holds.

    Args:
        sweep: what varies, and how much is tried.
        base: the experiment, `fixed` applied.
        data_dir: the prepared data set.
        out: the sweep's folder; a failed trial is run again when the same command is.
        address: of a running cluster; one is started here if None.
        num_cpus: of the cluster that is started here; those of the machine if None.
        train: in place of raymeta's own training.

    Raises:
        ConfigError: `out` holds another sweep.
        ResourceError: the cluster can never run one trial.
        RaymetaError: trials failed; what they left is kept.
    """
    fingerprint = _fingerprint(sweep, base, data_dir)
    _claim(out, fingerprint)
    plan = TrialPlan(
        base=base,
        data_dir=data_dir.resolve(),
        sweep_dir=out.resolve(),
        workers=sweep.workers_per_trial,
        train=train,
    )
    with runtime.session(address, num_cpus=num_cpus):
        _require_room(sweep)
        grid = _fit(sweep, plan)
        _note_endings(out, grid, last_step=base.training.max_outer_steps)
        _raise_failures(grid, out)
        trials = records.read_trials(out)
        if not trials or trials[0].best_score is None:
            raise RaymetaError(
                f"None of the {len(trials)} trials in {out} was validated.",
                remedy="Look into the trials' folders.",
            )
        best = experiment_with(base, trials[0].values, source=f"trial {trials[0].trial_id}")
        artifact = _finish(best, trials[0], plan)
    return SweepResult(trials=trials, best=best, artifact=artifact)


def _fit(sweep: SweepConfig, plan: TrialPlan) -> Any:
    from ray import tune

    function = tune.with_resources(trainable(plan), _WAITING if plan.workers > 1 else _ALONE)
    state = plan.sweep_dir / "ray" / sweep.name
    with _tune_environment():
        if tune.Tuner.can_restore(str(state)):
            # a failed trial goes on under its own id; restarting would make a new one of it
            tuner = tune.Tuner.restore(str(state), trainable=function, resume_errored=True)
        else:
            shutil.rmtree(state, ignore_errors=True)  # killed before Tune had written its state
            tuner = tune.Tuner(
                function,
                param_space=space.search_space(sweep),
                tune_config=tune.TuneConfig(
                    metric=space.METRIC,
                    mode="max",
                    num_samples=sweep.num_samples,
                    search_alg=space.searcher(sweep),
                    scheduler=space.scheduler(sweep, plan.base.training),
                    # a fresh process costs seconds of imports; one with a nested run still going
                    # has to end, since that is what ends the run
                    reuse_actors=plan.workers == 1,
                ),
                run_config=tune.RunConfig(
                    name=sweep.name, storage_path=str(plan.sweep_dir / "ray"), verbose=0
                ),
            )
        return tuner.fit()


def _finish(best: ExperimentConfig, trial: TrialRecord, plan: TrialPlan) -> Path:
    """Goes on from the best trial's checkpoint to its end, here, and writes the artifact."""
    folder = TrialFolder(plan.sweep_dir, trial.trial_id)
    artifact = folder.path / "artifact"
    if (artifact / "manifest.json").exists():  # written last, so that it is whole
        return artifact
    # its history is complete: what the end of the training adds is in the artifact
    return train_trial(best, plan, folder, _Silent(), out=artifact) or artifact


class _Silent:
    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Drops the metrics."""


def _require_room(sweep: SweepConfig) -> None:
    workers = sweep.workers_per_trial
    if workers == 1:
        runtime.require_resources({"CPU": 1}, purpose="A trial")
        return
    # each that got some of its workers would wait for the others', for ever
    concurrent = min(sweep.max_concurrent_trials, sweep.num_samples)
    runtime.require_resources(
        {"CPU": concurrent * workers},
        purpose=f"{concurrent} trial(s) at a time with {workers} workers each",
    )


def _claim(out: Path, fingerprint: dict[str, Any]) -> None:
    """Makes `out` this sweep's, or sees that it is."""
    path = out / "sweep.json"
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != fingerprint:
            raise ConfigError(
                f"{out} holds another sweep, experiment or data set.",
                remedy="Choose another --out, or delete that folder.",
            )
        return
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no sweep.", remedy="Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(fingerprint, indent=2) + "\n", encoding="utf-8")
    temporary.rename(path)


def _fingerprint(sweep: SweepConfig, base: ExperimentConfig, data_dir: Path) -> dict[str, Any]:
    manifest = data_dir / "manifest.json"
    if not manifest.is_file():
        raise DataError(
            f"{data_dir} is not a prepared data set: it has no manifest.json.",
            remedy="Prepare one with raymeta prepare, and name its folder with --data.",
        )
    # how many run at a time may change from one day to the next
    settings = sweep.model_dump(mode="json", exclude={"max_concurrent_trials"})
    return {
        "sweep": settings,
        "experiment": base.model_dump(mode="json"),
        "data_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
    }


def _note_endings(out: Path, grid: Any, *, last_step: int) -> None:
    """A trial that ended without a word was ended by Tune, failed, or its process was killed.

    Tune also ends the ones that reached `last_step`, inside their last report.
    """
    # Tune names a trial's folder by its id, which a trial that never reported has nowhere else
    failed = " ".join(Path(r.path).name for r in grid if r.error is not None)
    known = " ".join(Path(r.path).name for r in grid)
    for record in records.read_trials(out):
        folder = TrialFolder(out, record.trial_id)
        if record.trial_id in failed:
            folder.end("failed")
        elif not record.ending and record.last_step >= last_step:
            folder.end("finished")
        elif not record.ending:
            folder.end("stopped early" if record.trial_id in known else "interrupted")


def _raise_failures(grid: Any, out: Path) -> None:
    if not grid.num_errors:
        return
    last_line = str(grid.errors[0]).strip().splitlines()[-1]
    raise RaymetaError(
        f"{grid.num_errors} of {len(grid)} trials failed; the first: {last_line}",
        remedy=f"Correct the cause and run the same command again: {out} keeps the others.",
    )


@contextlib.contextmanager
def _tune_environment() -> Iterator[None]:
    """Ctrl-C is ours, so that it ends the command; Tune's state is then a second old at most."""
    wanted = {"TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
