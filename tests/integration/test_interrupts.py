"""Ctrl-C, as a terminal sends it: exit code 130, no broken folder, no process left behind.

Of training there is more in `test_training_interrupted`.
"""

from pathlib import Path

import pytest
import yaml

from tests.helpers.runs import Command, command, long_run, write_experiment
from tests.helpers.servers import free_port
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


@pytest.mark.ray
@pytest.mark.slow
def test_of_tune_leaves_no_process_and_the_same_command_goes_on(tmp_path: Path) -> None:
    shop = write_grouped_shop(tmp_path / "shop")
    (shop / "manifest.json").write_text("{}")  # it names what a sweep belongs to
    experiment = write_experiment(
        tmp_path / "long.yaml", long_run(max_outer_steps=100_000, num_workers=1)
    )
    sweep = {
        "name": "rates",
        "experiment": str(experiment),
        "vary": {"algorithm.inner_lr": {"loguniform": [0.1, 1.0]}},
        "num_samples": 2,
        "max_concurrent_trials": 2,
    }
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(sweep))
    out = tmp_path / "sweep"
    words = ("tune", config, "--data", shop, "--out", out)

    def steps() -> set[int]:
        return {int(path.name.split("-")[1]) for path in out.glob("**/checkpoints/step-*")}

    with command(*words, folder=tmp_path) as started:
        started.wait_until(lambda: bool(steps()))
        interrupt(started)
        assert started.survivors(after_s=20) == []
    reached = max(steps())
    with command(*words, folder=tmp_path) as again:
        again.wait_until(lambda: max(steps()) > reached)
        interrupt(again)
        assert again.survivors(after_s=20) == []


@pytest.mark.ray
@pytest.mark.slow
def test_of_demo_while_it_trains_and_while_it_serves(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    words = ("demo", "--quick", "--folder", folder, "--port", free_port())
    with command(*words, folder=tmp_path) as started:
        started.wait_until(
            lambda: any(folder.glob("train-quick/checkpoints/step-*")), timeout_s=240
        )
        interrupt(started)
        assert started.survivors(after_s=20) == []
    with command(*words, folder=tmp_path) as again:
        again.wait_until(lambda: "Serving until Ctrl-C." in again.output(), timeout_s=400)
        assert again.ctrl_c() == 0, again.output()
        assert again.survivors(after_s=20) == []
