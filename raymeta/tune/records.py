"""What a sweep's folder holds of each trial: its values and its validations, readable at any time.

    OUT/trials/<id>/trial.json      values; written when the trial starts
    OUT/trials/<id>/history.jsonl   one line a validation
    OUT/trials/<id>/checkpoints/    where the training goes on from; `train/` with several workers
    OUT/trials/<id>/end.json        "finished", "stopped early", "failed" or "interrupted"

Plain files beside Ray's own state: a progress bar, the table, the picture and a resumed trial all
read the same lines, and none needs to unpickle anything. Knows nothing of Ray.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrialRecord:
    """A trial as its folder tells it.

    Attributes:
        trial_id: Ray Tune's id; stays the same when a sweep is resumed.
        values: path -> value of what varies.
        best_score: the best validation score so far; None before the first.
        best_step: the outer step of it.
        last_step: the last outer step that was validated.
        ending: "finished", "stopped early", "failed", "interrupted"; empty while it runs.
    """

    trial_id: str
    values: dict[str, Any]
    best_score: float | None
    best_step: int
    last_step: int
    ending: str


class TrialFolder:
    """The folder of one trial, as the trial writes it."""

    def __init__(self, sweep_dir: Path, trial_id: str) -> None:
        self.path = sweep_dir / "trials" / trial_id

    def start(self, values: Mapping[str, Any]) -> None:
        """Notes the values; a resumed trial keeps its history."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "end.json").unlink(missing_ok=True)
        _write_json(self.path / "trial.json", {"values": dict(values)})

    def add(self, step: int, score: float, metrics: Mapping[str, float]) -> float:
        """Notes a validation; returns the best score so far, those before a resume included."""
        line = json.dumps({"step": step, "score": score, **metrics})
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return max(float(row["score"]) for row in self.history())

    def end(self, ending: str) -> None:
        _write_json(self.path / "end.json", {"ending": ending})

    def history(self) -> list[dict[str, Any]]:
        """The validations in order of steps; after a resume a step may have been repeated."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return []
        by_step: dict[int, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a process was killed while it wrote this line
            by_step[int(row["step"])] = row
        return [by_step[step] for step in sorted(by_step)]

    @property
    def checkpoints_dir(self) -> Path:
        """Where the training goes on from."""
        return self.path / "checkpoints"


def read_trials(sweep_dir: Path) -> list[TrialRecord]:
    """Every trial that has started, best first; those without a score last."""
    records = [_read(sweep_dir, path.parent.name) for path in sweep_dir.glob("trials/*/trial.json")]
    return sorted(
        records,
        key=lambda r: (r.best_score is None, -(r.best_score or 0.0), r.last_step, r.trial_id),
    )


def _read(sweep_dir: Path, trial_id: str) -> TrialRecord:
    folder = TrialFolder(sweep_dir, trial_id)
    values = json.loads((folder.path / "trial.json").read_text(encoding="utf-8"))["values"]
    history = folder.history()
    best = max(history, key=lambda row: float(row["score"]), default=None)
    end = folder.path / "end.json"
    ending = json.loads(end.read_text(encoding="utf-8"))["ending"] if end.exists() else ""
    return TrialRecord(
        trial_id=trial_id,
        values=values,
        best_score=float(best["score"]) if best else None,
        best_step=int(best["step"]) if best else 0,
        last_step=int(history[-1]["step"]) if history else 0,
        ending=ending,
    )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.rename(path)
