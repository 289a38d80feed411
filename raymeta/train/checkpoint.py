"""A run's position: everything needed to go on and end at the same numbers.

Batches are a function of the seed and the step, so the step is the position in the data and no
generator's state needs keeping.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file, save_file

from raymeta.types import Params


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: outer steps done.
        best_score: the best mean of the validation metric so far, reached at `best_step`.
        stale: validations since then.
        curve: the validation curve at `best_step`, by support size.
    """

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    stale: int = 0
    curve: dict[str, float] = field(default_factory=dict)


class CheckpointStore(Protocol):
    """Where checkpoints go: a folder, Ray Train's storage, or a trial's records."""

    def latest(self) -> Path | None:
        """The folder of the newest whole checkpoint."""
        ...

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Gives `write` an empty folder and keeps what it writes."""
        ...

    def stage(self, name: str) -> "CheckpointStore":
        """Another store beside this one's checkpoints, for a part of the run before them."""
        ...


@dataclass(frozen=True)
class FolderCheckpoints:
    """The newest checkpoint of a run, in one folder."""

    folder: Path

    def stage(self, name: str) -> "FolderCheckpoints":
        return FolderCheckpoints(self.folder / name)

    def latest(self) -> Path | None:
        whole = sorted(self.folder.glob("step-*/position.json"))
        return whole[-1].parent if whole else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        building = self.folder / ".building"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        write(building)
        target = self.folder / f"step-{step:08d}"
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        for older in self.folder.glob("step-*"):
            if older != target:
                shutil.rmtree(older)


def write_checkpoint(
    folder: Path, position: Position, params: Params, best: Params, optimizer: Params
) -> None:
    """Weights as safetensors, the position as JSON, written last."""
    named = {"params": params, "best": best, "optimizer": optimizer}
    for name, tensors in named.items():
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / name)
    (folder / "position.json").write_text(json.dumps(asdict(position)))


def read_checkpoint(folder: Path) -> tuple[Position, Params, Params, Params]:
    """What `write_checkpoint` wrote."""
    position = Position(**json.loads((folder / "position.json").read_text()))
    params, best, optimizer = (load_file(folder / n) for n in ("params", "best", "optimizer"))
    return position, params, best, optimizer
