"""The folder of a data set: written beside its place and renamed into it, the manifest last.

So the folder is whole or absent, whatever interrupts. What the files mean is left to `prepare`.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raymeta.errors import DataError

MANIFEST = "manifest.json"
FORMAT = "raymeta-dataset"
FORMAT_VERSION = 1


@contextlib.contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder beside `out` that becomes `out` when the block ends well.

    Raises:
        DataError: `out` is a file, a data set and not to be overwritten, or not ours.
    """
    refuse_taken(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(out)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        _move_into_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_taken(out: Path, *, overwrite: bool) -> None:
    """Refuses a place that holds something which must not be lost."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file.", remedy="Give --out a new folder.")
    if not any(out.iterdir()):
        return
    if not is_dataset(out):
        raise DataError(
            f"{out} is not empty and holds no data set of raymeta.",
            remedy="Give --out a new or empty folder; nothing was changed.",
        )
    if not overwrite:
        raise DataError(
            f"{out} holds a data set already.",
            remedy="Give --out another folder, or add --overwrite to replace it.",
        )


def is_dataset(folder: Path) -> bool:
    """Whether a folder holds a whole data set."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a data set.

    Raises:
        DataError: the folder holds none, or one of another version.
    """
    path = Path(folder) / MANIFEST
    if not is_dataset(path.parent):
        raise DataError(
            f"{folder} holds no data set of raymeta.",
            remedy="Make one with: raymeta prepare SOURCE --out DIR",
        )
    return versioned_manifest(path, version=FORMAT_VERSION)


def versioned_manifest(path: Path, *, version: int) -> dict[str, Any]:
    """A manifest of the format version that this release reads; another is a `DataError`."""
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found = manifest.get("format_version")
    if found != version:
        raise DataError(
            f"{path} has format version {found!r}; this release reads {version}.",
            remedy="Prepare the data again with this release.",
        )
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as it is stored."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


def text_sha256(text: str) -> str:
    """The hash of a text as it is stored."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, by relative path."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            hashes[path.relative_to(folder).as_posix()] = digest
    return hashes


def _move_into_place(partial: Path, out: Path) -> None:
    """Renames; what stood there is moved aside first and put back if that fails."""
    if not out.exists():
        partial.rename(out)
        return
    aside = out.parent / f".{out.name}.replaced-{os.getpid()}"
    out.rename(aside)
    try:
        partial.rename(out)
    except BaseException:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """What a killed run left: partial folders whose process is gone."""
    for left in out.parent.glob(f".{out.name}.partial-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
