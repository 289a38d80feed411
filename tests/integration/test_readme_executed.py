"""The commands of README.md, run one after the other as a reader would, in an empty folder.

Words are added that make them short, as a reader might; none is left out.
"""

import json
import shlex
import shutil
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.readmes import ROOT, commands
from tests.helpers.runs import command
from tests.helpers.servers import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow]

QUICKLY = ("--set", "training.max_outer_steps=2")
SHORTER: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "data": (),
    "train": (*QUICKLY, "--num-workers", "1"),
    "evaluate": ("--baselines", "popularity"),
    "tune": ("--set", "num_samples=2", "--set", "fixed.training.max_outer_steps=2"),
}
FOLDS = ("--folds", "1", *QUICKLY, "--data", "runs/complete-journey/data")

ELSEWHERE = {
    "make demo ARGS=--no-serve": ".ci/run, with --quick",
    "make test": ".ci/run",
    "make evaluate-retail DATA=folder": "needs a log that everyone downloads for themselves",
    "cluster/local.sh start": "test_jobs, on ports of its own",
    "raymeta job submit -- train tune_configs/experiments/complete_journey.yaml": "test_jobs",
}

COMMANDS = [line for name, line in commands() if name == "README.md"]


def test_each_command_is_run_here_or_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tune_configs", tmp_path / "tune_configs")
    served = []
    for line in COMMANDS:
        if line in ELSEWHERE:
            continue
        words = shlex.split(line)
        assert words[0] == "raymeta", f"{line!r} is run by no test"
        if words[1] == "serve":
            served.append(words[1:])
            continue
        more = (*SHORTER[words[1]], *(FOLDS if "--folds" in words else ()))
        with command(*words[1:], *more, folder=tmp_path) as started:
            assert started.wait(timeout_s=600) == 0, f"{line}: {started.output()}"
    assert set(ELSEWHERE) <= set(COMMANDS)
    assert served
    for words in served:
        answers_a_stranger(words, tmp_path)


def answers_a_stranger(words: list[str], folder: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with command(*words, "--port", port, "--store", folder / "events", folder=folder) as serving:
        serving.wait_until(lambda: url in serving.output(), timeout_s=180)
        request = urllib.request.Request(
            f"{url}/v1/recommend",
            data=json.dumps({"user_id": "stranger"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert len(json.load(response)["items"]) == 10
        assert serving.ctrl_c() == 0, serving.output()
