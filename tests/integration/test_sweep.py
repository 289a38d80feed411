"""A sweep on Ray Tune, with a training whose best values are known and that costs nothing."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raymeta import runtime
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.sweep import SweepConfig
from raymeta.errors import ConfigError, RaymetaError, ResourceError
from raymeta.tune.records import read_trials
from raymeta.tune.sweep import SweepResult, run_sweep

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
BEST_LR = 0.5
STEPS = (25, 50, 75, 100)
BASE = ExperimentConfig.parse(
    {"name": "shop", "training": {"max_outer_steps": STEPS[-1], "validate_every": 25}},
    source="test",
)


def sweep_of(**values: Any) -> SweepConfig:
    settings = {
        "name": "inner",
        "experiment": "shop.yaml",
        "vary": {"algorithm.inner_lr": {"loguniform": [0.01, 10.0]}},
        "num_samples": 8,
        "scheduler": {"grace_validations": 1, "reduction_factor": 2},
        **values,
    }
    return SweepConfig.parse(settings, source="test")


def train(
    experiment: ExperimentConfig,
    data_dir: Path,
    *,
    reporter: Any,
    checkpoints: Any,
    out: Path | None,
) -> Any:
    """Scores better the nearer the rate is to the best one, and the longer it has trained.

    The data folder's `broken` says above which rate it fails, `pause_s` how long a step takes.
    """
    lr = experiment.algorithm.inner_lr
    settings = json.loads((data_dir / "manifest.json").read_text())
    broken = data_dir / "broken"
    latest = checkpoints.latest()
    done = json.loads((latest / "position.json").read_text()) if latest else 0
    for step in STEPS:
        if step <= done:
            continue
        if broken.exists() and lr > float(broken.read_text()):
            raise ValueError(f"the loss is not finite at {lr:.3g}")
        time.sleep(settings.get("pause_s", 0.02))
        checkpoints.save(step, partial(write_checkpoint, step))
        reporter.report(step, {"score": score_of(lr, step), "loss": 1.0})
    if out is not None:
        out.mkdir()
        (out / "rate").write_text(str(lr))
        (out / "manifest.json").write_text("{}")
    return SimpleNamespace(artifact_path=out)


def write_checkpoint(step: int, folder: Path) -> None:
    (folder / "position.json").write_text(str(step))


def score_of(lr: float, step: int) -> float:
    return (1.0 - abs(math.log10(lr / BEST_LR)) / 4) * (1.0 - 5.0 / step)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with runtime.session(num_cpus=2):
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def run(data: Path, sweep: SweepConfig | None = None) -> SweepResult:
    out = data.parent / "sweep"
    return run_sweep(sweep or sweep_of(), BASE, data_dir=data, out=out, train=train)


def test_finds_the_best_ends_the_lagging_early_and_writes_the_artifact(data: Path) -> None:
    result = run(data)
    assert len(result.trials) == 8
    rates = {t.trial_id: float(t.values["algorithm.inner_lr"]) for t in result.trials}
    finished = [t for t in result.trials if t.ending == "finished"]
    early = [t for t in result.trials if t.ending == "stopped early"]
    assert finished
    assert early, "ASHA ends at least the worst of eight"
    assert len(finished) + len(early) == 8
    assert all(t.last_step < STEPS[-1] for t in early)
    best = result.trials[0]
    assert best.best_score == pytest.approx(score_of(rates[best.trial_id], best.last_step))
    nearest = min(rates.values(), key=lambda lr: abs(math.log10(lr / BEST_LR)))
    assert rates[best.trial_id] == nearest
    assert result.best.algorithm.inner_lr == nearest
    assert result.artifact is not None
    assert float((result.artifact / "rate").read_text()) == nearest


def test_a_failed_trial_is_raised_and_the_same_command_retries_it_alone(data: Path) -> None:
    sweep = sweep_of(scheduler=None, num_samples=4)
    (data / "broken").write_text("0.3")
    with pytest.raises(RaymetaError, match=r"of 4 trials failed.*the loss is not finite at") as got:
        run(data, sweep)
    assert "run the same command again" in got.value.remedy
    out = data.parent / "sweep"
    before = {t.trial_id: t for t in read_trials(out)}
    failed = {name for name, t in before.items() if t.ending == "failed"}
    assert failed
    assert len(failed) < 4
    written = {
        name: (out / "trials" / name / "history.jsonl").stat().st_mtime_ns
        for name in before.keys() - failed
    }
    (data / "broken").unlink()
    after = {t.trial_id: t for t in run(data, sweep).trials}
    assert after.keys() == before.keys()
    assert {t.ending for t in after.values()} == {"finished"}
    for name, mtime in written.items():
        assert (out / "trials" / name / "history.jsonl").stat().st_mtime_ns == mtime


def test_another_sweep_does_not_go_into_the_same_folder(data: Path) -> None:
    sweep = sweep_of(num_samples=2)
    run(data, sweep)
    with pytest.raises(ConfigError, match="holds another sweep"):
        run(data, sweep_of(num_samples=3))
    # how many run at a time is no other sweep; nor is anything trained again
    trials = run(data, sweep_of(num_samples=2, max_concurrent_trials=1)).trials
    assert len(trials) == 2


def test_more_workers_than_cpus_are_refused_before_anything_starts(data: Path) -> None:
    with pytest.raises(ResourceError, match=r"2 trial\(s\) at a time with 3 workers each: 6 CPU"):
        run(data, sweep_of(workers_per_trial=3))


def test_killed_in_the_middle_it_goes_on_where_it_was(data: Path) -> None:
    out = data.parent / "sweep"
    (data / "manifest.json").write_text(json.dumps({"pause_s": 0.4}))
    code = (
        "import sys; from pathlib import Path; from tests.integration import test_sweep as t; "
        "t.run(Path(sys.argv[1]), t.sweep_of(num_samples=4, scheduler=None))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(data)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while sum(bool(t.ending) for t in read_trials(out)) < 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.2)  # Tune's state is a second old at most
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = read_trials(out)
    assert any(not t.ending for t in before), "it was killed in the middle"
    # written before the kill: a trial that has ended is not trained again
    ended = [t.trial_id for t in before if t.ending]
    stamps = {n: (out / "trials" / n / "history.jsonl").stat().st_mtime_ns for n in ended}
    result = run(data, sweep_of(num_samples=4, scheduler=None))
    endings = [t.ending for t in result.trials]
    assert endings.count("finished") == 4
    for name, stamp in stamps.items():
        assert (out / "trials" / name / "history.jsonl").stat().st_mtime_ns == stamp
    for trial in result.trials:
        lines = (out / "trials" / trial.trial_id / "history.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps.count(25) == 1, "a resumed trial starts from its checkpoint"
