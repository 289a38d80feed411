"""The tables of the core benchmark, in Markdown, from lines of `results.jsonl`.

python tests/benchmarks/core/table.py          the last measurement of each work and contender
"""

import json
from pathlib import Path
from typing import Any


def print_tables(lines: list[dict[str, Any]]) -> None:
    latest = {(line["work"], line["contender"]): line for line in lines}
    # a ratio only means something between rows of one run
    bases = {
        (line["work"], line["at"]): line.get("users_per_s")
        for line in lines
        if line["contender"] == "learn2learn"
    }
    works = list(dict.fromkeys(work for work, _ in latest))
    contenders = sorted({name for _, name in latest}, key=_column)
    print("\nUsers a second, as a ratio to learn2learn in the same run (its own in brackets)\n")
    _row("work", *contenders)
    _row(*("---" for _ in range(len(contenders) + 1)))
    for work in works:
        lines_of = [latest.get((work, name)) for name in contenders]
        _row(work, *(_ratio(line, bases) if line else "-" for line in lines_of))
    for title, cell in (
        ("Quartile spread of a step's CPU time, per cent of the median", _spread),
        ("Peak extra memory of a step, MiB", lambda line: f"{line['extra_bytes'] / 2**20:.1f}"),
        ("Matrix products of the plain loop, per cent of this machine's peak", _fraction),
        ("First step, s (tracing or compiling included)", lambda line: f"{line['first_s']:.1f}"),
    ):
        print(f"\n{title}\n")
        _row("work", *contenders)
        _row(*("---" for _ in range(len(contenders) + 1)))
        for work in works:
            lines_of = [latest.get((work, name), {}) for name in contenders]
            _row(work, *(cell(line) if "step_s" in line else "-" for line in lines_of))


def _column(contender: str) -> tuple[int, str]:
    return (
        0 if contender == "learn2learn" else 2 if contender.startswith("raymeta") else 1
    ), contender


def _ratio(line: dict[str, Any], bases: dict[tuple[str, str], float | None]) -> str:
    if "users_per_s" not in line:
        return str(line["error"])[:40]
    base = bases.get((line["work"], line["at"]))
    own = f"[{line['users_per_s']:.0f}/s]"
    if line["contender"] == "learn2learn":
        return f"1 {own}"
    return f"{line['users_per_s'] / base:.2f}" if base else own


def _spread(line: dict[str, Any]) -> str:
    low, middle, high = line["step_s"]
    return f"{100 * (high - low) / middle:.0f}"


def _fraction(line: dict[str, Any]) -> str:
    return f"{100 * line['standard_gflops'] / line['peak_gflops']:.0f}"


def _row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    results = Path(__file__).parent / "results.jsonl"
    print_tables([json.loads(line) for line in results.read_text().splitlines()])
