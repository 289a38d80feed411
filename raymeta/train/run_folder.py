"""A run's folder: which settings it is for, and that one process at a time writes into it.

What is in it (checkpoints, metrics, the artifact) is the business of who writes that.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import ConfigError, ResourceError

EXPERIMENT_FILE = "experiment.json"
_POLL_S = 0.2


def claim_folder(out: Path, experiment: ExperimentConfig) -> None:
    """Notes the settings of a run in its folder; another run's folder is refused.

    Raises:
        ConfigError: `out` is a file, or holds a run with other settings.
    """
    settings = experiment.model_dump(mode="json")
    path = out / EXPERIMENT_FILE
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file.", remedy="Give --out a new folder.")
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != settings:
            raise ConfigError(
                f"{out} holds a run with other settings.",
                remedy="Choose another --out, or remove that folder.",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    building = out / f".{EXPERIMENT_FILE}"
    building.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    building.replace(path)


@contextlib.contextmanager
def exclusive(lock: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Holds the file `lock` for the length of a `with`; a process that dies gives it up.

    A process that a killed command left behind writes for a moment longer: waiting here for its
    end keeps two writers from mixing what they write.

    Raises:
        ResourceError: another process still holds it after `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise ResourceError(
                    f"Another process is training into {lock.parent}.",
                    remedy="Wait until it has ended, or give --out another folder.",
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
