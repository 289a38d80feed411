"""What a sweep leaves behind: a picture, and an experiment that can be run."""

from pathlib import Path

import pytest
import yaml

from raymeta.config.base import load_settings
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.sweep import SweepConfig, experiment_with
from raymeta.errors import RaymetaError
from raymeta.tune.records import TrialRecord
from raymeta.tune.report import write_report

SWEEP = SweepConfig.parse(
    {
        "name": "inner",
        "experiment": "shop.yaml",
        "vary": {
            "algorithm.inner_lr": {"loguniform": [0.01, 10]},
            "algorithm.num_inner_steps": {"randint": [1, 8]},
            "algorithm.name": {"choice": ["anil", "fomaml"]},
        },
    },
    source="test",
)


def trial(name: str, score: float | None, lr: float, steps: int, algorithm: str) -> TrialRecord:
    values = {
        "algorithm.inner_lr": lr,
        "algorithm.num_inner_steps": steps,
        "algorithm.name": algorithm,
    }
    ending = "failed" if score is None else "finished"
    return TrialRecord(name, values, score, 50, 100, ending)


TRIALS = [
    trial("b", 0.5123, 0.3, 3, "fomaml"),
    trial("a", 0.41, 0.05, 1, "anil"),
    trial("c", None, 5.0, 7, "anil"),
]
BASE = ExperimentConfig.parse({"name": "shop"}, source="test")


def test_the_best_trial_is_an_experiment_that_says_where_it_is_from(tmp_path: Path) -> None:
    best = experiment_with(BASE, TRIALS[0].values, source="test")
    files = write_report(tmp_path, sweep=SWEEP, trials=TRIALS, best=best, sweep_file="s/inner.yaml")
    text = files["experiment"].read_text()
    assert "The best of 3 trials of the sweep inner" in text
    assert "algorithm.inner_lr=0.3, algorithm.num_inner_steps=3" in text
    assert "s/inner.yaml" in text
    assert "0.5123 at outer step 50, trial b" in text
    again = load_settings(ExperimentConfig, files["experiment"])
    assert again == best.model_copy(update={"name": "inner-best"})
    assert len(yaml.safe_load(files["table"].read_text())) == 3


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    files = write_report(tmp_path, sweep=SWEEP, trials=TRIALS, best=BASE, sweep_file="x")
    data = files["picture"].read_bytes()
    assert data[:4] == b"\x89PNG"
    assert len(data) > 10_000


def test_no_score_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(RaymetaError, match="No trial has a score"):
        write_report(tmp_path, sweep=SWEEP, trials=TRIALS[2:], best=BASE, sweep_file="x")
