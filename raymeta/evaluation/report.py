"""A report folder: what was measured as JSON and by user, as pages to read, and as pictures."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raymeta.errors import DataError
from raymeta.evaluation.fold import OURS, FoldScores
from raymeta.evaluation.page import to_html
from raymeta.evaluation.plots import draw_curve, draw_gains
from raymeta.evaluation.summary import LABELS, Summary, pool
from raymeta.evaluation.tables import (
    METRIC_TITLES,
    difference_rows,
    protocol_text,
    quality_rows,
    size_text,
)

RESULTS = "results.json"
CELLS = "cells"
"""Where folds keep what they computed, inside a report's folder."""


def write_report(result: Summary, scores: Sequence[FoldScores], folder: Path) -> None:
    """Writes the report's files into `folder`, beside whatever cells it holds.

    All are made before the first of an earlier report is replaced; results.json goes first and
    comes last, so that its presence means that the others belong to it.

    Raises:
        DataError: the folder is there and is not a report's.
    """
    with replacing(folder) as partial:
        pool(scores).to_parquet(partial / "per_user.parquet", index=False)
        draw_curve(result, partial / "curve.png")
        gains = None
        if result["gain"]:
            gains = partial / "gains.png"
            draw_gains(result, gains)
        (partial / "report.md").write_text(to_markdown(result), encoding="utf-8")
        page = to_html(result, curve=partial / "curve.png", gains=gains)
        (partial / "report.html").write_text(page, encoding="utf-8")
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (partial / RESULTS).write_text(text + "\n", encoding="utf-8")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder to write a report's files into, which replace those of an earlier one at the end.

    Raises:
        DataError: `folder` is there and is not a report's.
    """
    require_report_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        partial = Path(name)
        yield partial
        for name in (RESULTS, "gains.png"):
            (folder / name).unlink(missing_ok=True)
        made = sorted(partial.iterdir(), key=lambda file: file.name == RESULTS)
        for file in made:
            file.replace(folder / file.name)


def require_report_folder(folder: Path) -> None:
    """Refuses to write over something else: before minutes of work rather than after them."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    if names and not names & {RESULTS, CELLS}:
        raise DataError(
            f"{folder} is there and holds something other than a report.",
            remedy="Give another folder with --out.",
        )


def to_markdown(result: Summary) -> str:
    """The report as a page: a table a metric, paired differences, and how it was run."""
    title = f"# {result['protocol']['name']}: new users by support size"
    sections = [title, protocol_text(result)]
    for metric, title in METRIC_TITLES.items():
        sections.append(f"## {title}\n\n{_table(quality_rows(result, metric), result)}")
    sections.append(f"## Coverage@10\n\n{_table(_coverage_rows(result), result)}")
    if result["differences"]:
        sections.append(
            "## nDCG@10: ours less each other method, same users\n\n"
            + _table(difference_rows(result, result["support_sizes"]), result)
            + "\n\nA difference whose interval leaves out zero is **bold**."
        )
    if result["harm_rate"]:
        row = [f"{result['harm_rate'][str(size)]:.1%}" for size in result["support_sizes"]]
        sections.append(
            "## Harm rate\n\nShare of users whose nDCG@10 adapting makes worse than the "
            "unadapted model's.\n\n" + _table([("harm rate", row)], result)
        )
    sections.extend([_tuning(result), _run(result)])
    return "\n\n".join(filter(None, sections)) + "\n"


def _coverage_rows(result: Summary) -> list[tuple[str, list[str]]]:
    return [
        (
            LABELS[name],
            [f"{by_size[str(s)]['coverage_at_10']:.1%}" for s in result["support_sizes"]],
        )
        for name, by_size in result["methods"].items()
        if "coverage_at_10" in by_size[str(result["support_sizes"][0])]
    ]


def _table(rows: Sequence[tuple[str, Sequence[str]]], result: Summary) -> str:
    unit = result["protocol"]["unit"]
    return markdown_table([unit, *[size_text(size) for size in result["support_sizes"]]], rows)


def markdown_table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table in Markdown; the row of ours stands out."""
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for label, cells in rows:
        lines.append(_line([f"**{label}**" if label == LABELS[OURS] else label, *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tuning(result: Summary) -> str:
    folds = [facts for facts in result["folds"] if facts.get("tuned") is not None]
    if not folds:
        return ""
    lines = [
        "## Baselines",
        "",
        "Fitted on training users; settings by the mean nDCG@10 of validation users over the "
        "support sizes from 1 on. Without any support each of them ranks by popularity. Weights of "
        f"mixtures, by support size, are in {RESULTS}.",
        "",
        _line(["baseline", "configurations", "validation nDCG@10", "settings by fold"]),
        _line(["---", "---:", "---:", "---"]),
    ]
    for name in folds[0]["tuned"]:
        tuned = [facts["tuned"][name] for facts in folds if name in facts["tuned"]]
        quality = sum(t["validation_ndcg_at_10"] for t in tuned) / len(tuned)
        chosen = "; ".join(dict.fromkeys(_settings(t["settings"]) for t in tuned))
        count = str(tuned[0]["num_configurations"])
        lines.append(_line([LABELS[name], count, f"{quality:.4f}", chosen or "none"]))
    left_out = {n: why for facts in folds for n, why in facts["left_out"].items()}
    lines.extend(f"\n{LABELS[name]} was left out: {why}" for name, why in left_out.items())
    return "\n".join(lines)


def _settings(settings: dict[str, Any]) -> str:
    """Settings in a line, without the weights of a mixture, which depend on the support size."""
    parts = []
    for name, value in settings.items():
        if isinstance(value, dict) and name != "weights":
            parts.append(f"{LABELS[name]} with {_settings(value)}")
        elif name != "weights":
            parts.append(f"{name} {value:g}")
    return ", ".join(parts)


def run_lines(result: Summary) -> str:
    """How a result was made: the command, time, memory, versions."""
    run = result["run"]
    lines = ["## How it was run", "", f"    {run['command']}", ""]
    lines.append(f"- wall time {run['wall_s']:.0f} s, peak memory {run['peak_memory_mb']:,.0f} MB")
    lines += [f"- {name} {value}" for name, value in run["versions"].items()]
    return "\n".join(lines)


def _run(result: Summary) -> str:
    folds = [facts for facts in result["folds"] if "num_items" in facts]
    lines = [run_lines(result)]
    if folds:
        items = [facts["num_items"] for facts in folds]
        span = f"{min(items):,}" if len(set(items)) == 1 else f"{min(items):,} to {max(items):,}"
        outside: dict[str, int] = {}
        for facts in folds:
            for size, number in facts["num_outside"].items():
                outside[size] = outside.get(size, 0) + number
        text = ", ".join(f"{number:,} at {size}" for size, number in outside.items())
        lines.append(f"- catalogue of {span} items, counted from training users")
        lines.append(f"- later positive events on items outside it, not ranked: {text}")
    return "\n".join(lines)
