"""`raymeta train` that is killed or interrupted: the same command again ends at the same numbers.

The command runs as a shell starts it, with a Ray of its own.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from raymeta.errors import ResourceError
from raymeta.train.checkpoint import FolderCheckpoints
from raymeta.train.run_folder import exclusive
from raymeta.train.trainer import COMMAND_LOCK, METRICS_FILE
from tests.helpers.runs import Command, command, long_run, parameters, write_experiment
from tests.helpers.shops import write_grouped_shop

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 60
# workers end at once; Ray's two agents first try to reach what is gone
SURVIVORS_S = 90


class Run:
    """The words of one training command, and what its folder holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        data = write_grouped_shop(folder / "shop")
        config = write_experiment(folder / "long.yaml", long_run(max_outer_steps=STEPS))
        self.words = ("train", config, "--data", data, "--out", self.out)

    def validations(self) -> int:
        path = self.out / METRICS_FILE
        return len(path.read_text().splitlines()) if path.is_file() else 0

    def checkpoint_step(self) -> int:
        latest = FolderCheckpoints(self.out / "checkpoints").latest()
        return int(latest.name.removeprefix("step-")) if latest else -1

    def go_on(self) -> str:
        with command(*self.words, folder=self.folder) as again:
            assert again.wait() == 0, again.output()
            return again.output()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run(tmp_path_factory.mktemp("undisturbed"))
    run.go_on()
    return run.out / "artifact"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def disturbed(run: Run) -> Iterator[Command]:
    """The command in mid-training."""
    with command(*run.words, folder=run.folder) as started:
        started.wait_until(lambda: run.validations() >= 6)
        yield started


def assert_same(artifact: Path, undisturbed: Path) -> None:
    expected, found = parameters(undisturbed), parameters(artifact)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_killed_command_goes_on_at_the_same_numbers(
    run: Run, disturbed: Command, undisturbed: Path
) -> None:
    with pytest.raises(ResourceError, match="Another process is training into"):  # noqa: SIM117
        with exclusive(run.out / COMMAND_LOCK):
            pass
    disturbed.kill()
    assert not (run.out / "artifact").exists()
    step = run.checkpoint_step()
    assert 10 <= step < STEPS
    # at once: the workers of the killed command may still write
    shown = run.go_on()
    assert "step 0:" not in shown, "it did not begin again"
    assert f"step {STEPS}:" in shown
    assert_same(run.out / "artifact", undisturbed)
    assert not list(run.out.glob(".artifact*"))
    assert disturbed.survivors(after_s=SURVIVORS_S) == []


def test_ctrl_c_ends_it_whole_and_it_goes_on(
    run: Run, disturbed: Command, undisturbed: Path
) -> None:
    asked_s = time.monotonic()
    assert disturbed.ctrl_c() == 130, disturbed.output()
    assert "Interrupted." in disturbed.output()
    assert "Traceback" not in disturbed.output()
    print(f"ended {time.monotonic() - asked_s:.1f} s after Ctrl-C")
    assert disturbed.survivors(after_s=10) == []
    assert run.checkpoint_step() >= 10
    assert not list(run.out.glob("*artifact*"))
    run.go_on()
    assert_same(run.out / "artifact", undisturbed)
