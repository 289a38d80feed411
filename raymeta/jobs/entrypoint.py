"""From the words after `raymeta job submit --` to the command line that the cluster runs.

A job's own folder is a copy that is deleted after it. Paths to data and results therefore become
absolute here: they name a place that both machines see, which on one machine every path is.
"""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from raymeta.errors import ConfigError

VERBS_WITH_OUT = frozenset({"prepare", "train", "tune", "evaluate"})
"""Verbs that write a folder, and must be told where."""

_PATH_OPTIONS = frozenset(
    {"--data", "--out", "--path", "--events", "--items", "--users", "--store"}
)


def entrypoint(words: Sequence[str], *, verbs: Collection[str], cwd: Path) -> str:
    """The shell command of a job: a verb with its options, or any other program as it is given.

    Args:
        words: e.g. `["train", "shop.yaml", "--out", "runs/shop"]`, or `["python", "mine.py"]`.
        verbs: the verbs of the command line.
        cwd: the folder that relative paths of data and results are meant from.

    Raises:
        ConfigError: there are no words, or a verb that writes is not told where to.
    """
    if not words:
        raise ConfigError(
            "There is nothing to run.",
            remedy="Write it after --, e.g. raymeta job submit -- train shop.yaml --out runs/shop.",
        )
    if words[0] not in verbs:
        return shlex.join(words)
    verb, absolute = words[0], absolute_paths(words, cwd=cwd)
    told_where = any(word == "--out" or word.startswith("--out=") for word in absolute)
    if verb in VERBS_WITH_OUT and not told_where and "--help" not in absolute:
        raise ConfigError(
            f"'{verb}' has no --out, and a job's own folder is deleted after it.",
            remedy="Add --out FOLDER, a place that this machine and the cluster both see.",
        )
    return shlex.join(["python", "-m", "raymeta", *absolute])


def absolute_paths(words: Sequence[str], *, cwd: Path) -> list[str]:
    """`words` with the relative paths of data and results made absolute; URIs stay as they are."""
    result: list[str] = []
    previous = ""
    for word in words:
        option, sign, value = word.partition("=")
        if previous in _PATH_OPTIONS:
            result.append(_absolute(word, cwd))
        elif sign and option in _PATH_OPTIONS:
            result.append(f"{option}={_absolute(value, cwd)}")
        else:
            result.append(word)
        previous = word
    return result


def _absolute(path: str, cwd: Path) -> str:
    return path if "://" in path else str((cwd / path).resolve())
