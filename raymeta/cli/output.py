"""What a verb says: its result on stdout, once, and everything else on stderr.

Leaves logging to `raymeta.observability.logs`, and errors to `raymeta.cli.main`.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe, where rich would assume 80."""


class _StderrConsole(Console):
    """Looks up `sys.stderr` at each write, so that a redirected stream is honoured."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)


console: Console = _StderrConsole()
"""Progress and notes for people: stderr, so that a pipe carries results only."""


def emit(
    result: Mapping[str, Any],
    *,
    as_json: bool,
    render: Callable[[dict[str, Any]], RenderableType],
) -> None:
    """Prints a verb's result on stdout: one JSON line for programs, or what `render` makes of it.

    Args:
        result: plain values; a path is written as text, a number that is not finite as null.
        as_json: one line of JSON, keys in the order given.
        render: turns the result into text or a rich table, panel or group.
    """
    if as_json:
        sys.stdout.write(json.dumps(plain(result), allow_nan=False, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    shown = render(dict(result))
    out = result_console()
    if isinstance(shown, str):
        # as written: commands must survive being copied, so no markup and no wrapping
        out.print(shown, markup=False, highlight=False, soft_wrap=True)
    else:
        out.print(shown)


def result_console() -> Console:
    """A console on stdout, wide enough for tables where it is not a terminal."""
    is_terminal = sys.stdout.isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=sys.stdout, highlight=False, width=width)


def plain(value: Any) -> Any:
    """`value` with only what JSON has: paths as text, tuples as lists, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        return plain(value.item())  # a numpy or torch scalar
    return value
