"""Training runs on the grouped shop: their settings, their parameters, and the command itself."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import yaml

from raymeta.artifact import load_artifact
from raymeta.config.algorithms import AnilConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.types import Params
from tests.helpers.shops import SHOP

ROOT = Path(__file__).parents[2]

# tests that a shell runs in the background ignore Ctrl-C, and hand that on
AS_IN_A_TERMINAL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from raymeta.cli.main import main; main()"
)


def long_run(*, max_outer_steps: int, num_workers: int = 2) -> ExperimentConfig:
    """Validates at every second step and never stops early: long enough to be disturbed."""
    return ExperimentConfig(
        name="long",
        data=SHOP,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=AnilConfig(inner_lr=1.0),
        training=TrainingConfig(
            tasks_per_batch=16,
            max_outer_steps=max_outer_steps,
            validate_every=2,
            patience=max_outer_steps,
            num_workers=num_workers,
        ),
    )


def write_experiment(path: Path, experiment: ExperimentConfig) -> Path:
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")), encoding="utf-8")
    return path


def parameters(artifact: Path) -> Params:
    return load_artifact(artifact).meta_params


class Command:
    """`raymeta` as a shell starts it: the leader of a process group that a Ctrl-C reaches."""

    def __init__(self, *words: object, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("RAY_ADDRESS", None)
        self._log = (folder / "command.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", AS_IN_A_TERMINAL, *map(str, words)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        self._seen: dict[int, psutil.Process] = {}

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float = 90) -> None:
        """Polls `condition`, noting the processes that the command starts meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._note_processes()
            assert self._process.poll() is None, f"it ended too soon: {self.output()}"
            assert time.monotonic() < deadline, f"nothing happened: {self.output()}"
            time.sleep(0.02)
        self._note_processes()

    def kill(self) -> None:
        """SIGKILL of the command alone; what it started is left to itself."""
        self._process.kill()
        self._process.wait()

    def ctrl_c(self) -> int:
        """SIGINT to the whole group, as a terminal sends it; the exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.wait()

    def wait(self, *, timeout_s: float = 120) -> int:
        return self._process.wait(timeout_s)

    def output(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def survivors(self, *, after_s: float) -> list[str]:
        """What the command started and is still there when this time has passed."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=after_s)
        return [f"{process.pid} {_words(process)}" for process in alive]

    def end(self) -> None:
        """For a test that failed: nothing of it stays."""
        self._note_processes()
        for process in self._seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._log.close()

    def _note_processes(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self._seen.setdefault(process.pid, process)


@contextlib.contextmanager
def command(*words: object, folder: Path) -> Iterator[Command]:
    """`raymeta WORDS`, started in `folder`; ended with the block if it has not by itself."""
    started = Command(*words, folder=folder)
    try:
        yield started
    finally:
        started.end()


def _words(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())[:100]
    return "gone"
