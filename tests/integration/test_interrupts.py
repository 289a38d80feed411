"""Ctrl-C, as a terminal sends it: exit code 130, no broken folder, no process left behind.

Of training there is more in `test_training_interrupted`.
"""

from pathlib import Path

import pytest

from tests.helpers.runs import Command, command, long_run, write_experiment
from tests.helpers.shops import write_grouped_shop


def interrupt(started: Command) -> None:
    assert started.ctrl_c() == 130, started.output()
    assert started.output().rstrip().endswith("Interrupted.")
    assert "Traceback" not in started.output()


@pytest.mark.slow
@pytest.mark.parametrize("on_ray", [False, pytest.param(True, marks=pytest.mark.ray)])
def test_of_prepare_leaves_what_was_there(tmp_path: Path, on_ray: bool) -> None:
    out = tmp_path / "data"
    small = ("prepare", "synthetic", "--num-users", "50", "--num-visits", "500", "--out", out)
    with command(*small, folder=tmp_path) as first:
        assert first.wait() == 0, first.output()
    before = (out / "manifest.json").read_bytes()
    large = ("--num-visits", "1000000", "--overwrite", *(("--ray",) if on_ray else ()))
    with command("prepare", "synthetic", *large, "--out", out, folder=tmp_path) as started:
        started.wait_until(lambda: any(tmp_path.glob(".data.partial-*/shards/shard-*")))
        interrupt(started)
        assert started.survivors(after_s=20) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command.log", "data"]
    assert (out / "manifest.json").read_bytes() == before


@pytest.mark.ray
@pytest.mark.slow
def test_of_evaluate_leaves_whole_cells_only(tmp_path: Path) -> None:
    shop = write_grouped_shop(tmp_path / "shop")
    config = write_experiment(tmp_path / "long.yaml", long_run(max_outer_steps=100_000))
    report = tmp_path / "report"
    words = ("evaluate", config, "--data", shop, "--folds", "2", "--out", report)
    with command(*words, folder=tmp_path) as started:
        started.wait_until(lambda: any(report.glob("cells/.model-*.partial/checkpoints/step-*")))
        interrupt(started)
        assert started.survivors(after_s=20) == []
    assert not list(report.glob("*.json"))
    cells = [path for path in (report / "cells").iterdir() if not path.name.startswith(".")]
    assert all((path / "cell.json").is_file() for path in cells)
