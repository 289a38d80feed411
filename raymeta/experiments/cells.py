"""Cells: pieces of an experiment, each in a folder named by a hash of everything that decides it.

A cell that is there is whole and is not computed again; one that was interrupted keeps its partial
folder, so that work inside it can go on. What a cell holds is its maker's business.
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import raymeta

MANIFEST = "cell.json"

SCORING_CODE = ("seeding.py", "types.py", "data/*.py", "evaluation/**/*.py")
"""The source that decides the scores of a method."""

MODEL_CODE = (
    "artifact.py",
    "seeding.py",
    "types.py",
    "config/*.py",
    "data/*.py",
    "models/*.py",
    "adapters/*.py",
    "inner/*.py",
    "algorithms/*.py",
    "train/*.py",
    "evaluation/metrics.py",
    "evaluation/scenarios/*.py",
)
"""The source that decides a trained model."""

_SHOWS_ONLY = ("bootstrap.py", "plots.py", "report.py", "summary.py")
_PACKAGES_THAT_DECIDE = ("torch", "numpy", "scipy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Cell:
    """A piece of work and the values that decide its result.

    Attributes:
        kind: what is computed, the first part of its folder's name.
        label: for people, the second part; decides nothing.
        key: plain values; two cells with equal kind and key are the same.
    """

    kind: str
    label: str
    key: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        text = json.dumps([self.kind, self.key], sort_keys=True)
        return f"{self.kind}-{self.label}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class CellStore:
    """Cells in a folder, which every process that computes one must see."""

    root: Path

    def find(self, cell: Cell) -> Path | None:
        """The cell's folder, if it is whole."""
        folder = self.root / cell.name
        return folder if (folder / MANIFEST).is_file() else None

    def compute(self, cell: Cell, work: Callable[[Path], None]) -> Path:
        """The cell's folder; `work` fills it unless it is whole already.

        `work` gets the partial folder, with what an interrupted call left in it. The folder gets
        its final name when `work` has returned and the manifest is written.
        """
        found = self.find(cell)
        if found is not None:
            return found
        partial = self.root / f".{cell.name}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        work(partial)
        manifest = {"kind": cell.kind, "label": cell.label, "key": dict(cell.key)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        final = self.root / cell.name
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        return final


@cache
def code_version(*patterns: str) -> str:
    """A hash of the libraries, and of the package's source files that match `patterns`.

    What only shows results is left out, so that a nicer table costs no cell.
    """
    package = Path(raymeta.__file__).parent
    digest = hashlib.sha256()
    for path in sorted({p for pattern in patterns for p in package.glob(pattern)}):
        if path.parent.name == "evaluation" and path.name in _SHOWS_ONLY:
            continue
        digest.update(str(path.relative_to(package)).encode())
        digest.update(path.read_bytes())
    for name in _PACKAGES_THAT_DECIDE:
        digest.update(f"{name}=={importlib.metadata.version(name)}".encode())
    return digest.hexdigest()[:16]
