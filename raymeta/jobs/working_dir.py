"""What a job gets to run in: the files of a folder, and the raymeta of this process.

A job runs on another machine, or at least in another folder, so that what it needs is copied
there: code and settings, not data. Leaves the transfer to Ray, which stores the copy by content.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import raymeta
from raymeta.errors import ResourceError

DEFAULT_LIMIT_BYTES = 100 << 20
"""Ray refuses more than this by default; code and settings are far below it."""

_EXCLUDED_FOLDERS = frozenset(
    {"__pycache__", "build", "dist", "node_modules", "runs", "venv", "tests"}
)
_EXCLUDED_SUFFIXES = frozenset(
    {".parquet", ".safetensors", ".pt", ".sqlite", ".sqlite-wal", ".sqlite-shm", ".pyc", ".zip"}
)


@dataclass(frozen=True)
class Staged:
    """What was copied."""

    num_files: int
    num_bytes: int


def stage(root: Path, into: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Staged:
    """Copies what a job needs from `root` to the empty folder `into`, and raymeta beside it.

    Left out: hidden files and folders (`.git`, `.venv`), `runs`, builds, tests, data (Parquet,
    tensors, databases, archives) and links that lead out of `root`.

    Raises:
        ResourceError: `root` is not a folder, or what is left is larger than `limit_bytes`.
    """
    if not root.is_dir():
        raise ResourceError(
            f"The working folder {root} does not exist.",
            remedy="Name a folder with --working-dir.",
        )
    sizes = {path: path.stat().st_size for path in files_to_send(root)}
    total = sum(sizes.values())
    if total > limit_bytes:
        largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:3]
        named = ", ".join(f"{p.relative_to(root)} ({_megabytes(sizes[p])})" for p in largest)
        raise ResourceError(
            f"The working folder {root} holds {_megabytes(total)} in {len(sizes)} files to send, "
            f"over the limit of {_megabytes(limit_bytes)}; the largest: {named}.",
            remedy="Move data out of it, or name a smaller folder with --working-dir.",
        )
    for path in sizes:
        _copy(path, into / path.relative_to(root))
    if not (into / "raymeta" / "__init__.py").exists():
        # the cluster runs the code that submitted the job, whatever it has installed
        package = Path(raymeta.__file__).parent
        for path in files_to_send(package):
            _copy(path, into / "raymeta" / path.relative_to(package))
    return Staged(num_files=len(sizes), num_bytes=total)


def files_to_send(root: Path) -> Iterator[Path]:
    """The files of `root` that are code or settings, in a fixed order."""
    inside = root.resolve()
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _EXCLUDED_FOLDERS)
        for name in sorted(files):
            path = Path(folder) / name
            if name.startswith(".") or path.suffix in _EXCLUDED_SUFFIXES:
                continue
            if path.is_file() and path.resolve().is_relative_to(inside):
                yield path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MB"
