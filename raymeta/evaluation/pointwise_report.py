"""The report of probabilities: tables, a curve and a calibration picture, as JSON and as pages."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from raymeta.evaluation.fold import OURS, UNADAPTED, FoldScores
from raymeta.evaluation.page import PageTable, inline, render_page
from raymeta.evaluation.plots import STYLES, draw_curve
from raymeta.evaluation.pointwise import ECE_BINS
from raymeta.evaluation.report import RESULTS, markdown_table, replacing, run_lines
from raymeta.evaluation.scenarios.base import TextTable
from raymeta.evaluation.summary import LABELS, Summary
from raymeta.evaluation.tables import difference_rows, format_span, quality_rows, signed_span

TITLES = {"log_loss": "log loss", "auc": "AUC", "gauc": "GAUC", "ece": "ECE"}
_MAIN = ("log_loss", "auc", "gauc")


def write_report(result: Summary, scores: Sequence[FoldScores], folder: Path) -> None:
    """Writes the report's files into `folder`, as the report of ranking does.

    Raises:
        DataError: the folder is there and is not a report's.
    """
    with replacing(folder) as partial:
        table = pd.concat([part.table for part in scores], ignore_index=True)
        table.to_parquet(partial / "per_impression.parquet", index=False)
        curve, reliability = partial / "curve.png", partial / "calibration.png"
        draw_curve(result, curve, metric=result["judged"]["curve"])
        draw_calibration(result, reliability)
        (partial / "report.md").write_text(to_markdown(result), encoding="utf-8")
        page = _to_html(result, curve, reliability)
        (partial / "report.html").write_text(page, encoding="utf-8")
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (partial / RESULTS).write_text(text + "\n", encoding="utf-8")


def text_tables(result: Summary) -> tuple[list[TextTable], list[str]]:
    """For a terminal: log loss, AUC and GAUC of each target, and paired differences."""
    sizes, targets = result["support_sizes"], result["judged"]["targets"]
    tables = [
        TextTable(f"{_title(target, metric)} after so many {_unit(result)}", sizes, rows)
        for target in targets
        for metric in _MAIN
        for rows in [quality_rows(result, f"{target}_{metric}")]
    ]
    for target in targets:
        for metric in ("log_loss", "gauc"):
            rows = difference_rows(
                result, sizes, metric=f"{target}_{metric}", marks=("[bold]", "[/bold]")
            )
            if rows:
                title = f"{_title(target, metric)}: adapted less each other method, paired by user"
                tables.append(TextTable(title, sizes, rows))
    lines = ["A lower log loss is better; bold where clear of zero."]
    for label, cells in _demand_rows(result):
        facts = zip(_DEMAND_HEAD[1:], cells, strict=True)
        told = ", ".join(f"{fact} {cell}" for fact, cell in facts if cell)
        lines.append(f"Demand by category and period, forecast by {label}: {told}")
    return tables, lines


def to_markdown(result: Summary) -> str:
    """The report as a page."""
    sections = [f"# {result['protocol']['name']}: {_heading(result)}", _about(result)]
    for table in _tables(result, marks=("**", "**")):
        sections.append(f"## {table.title}\n\n{table.about}".rstrip())
        sections.append(markdown_table(table.head, table.rows))
    return "\n\n".join([*sections, run_lines(result)]) + "\n"


def draw_calibration(result: Summary, path: Path) -> None:
    """Writes a PNG: rate by probability at the largest support size, a panel a target."""
    targets = result["judged"]["targets"]
    figure = Figure(figsize=(5.5 * len(targets), 4.8), dpi=144, layout="constrained")
    panels = figure.subplots(1, len(targets), squeeze=False)[0]
    for axes, target in zip(panels, targets, strict=True):
        axes.plot([0, 1], [0, 1], color="#8a8f98", linewidth=1.0)
        for name, found in result["calibration"].items():
            points = found[target]
            axes.plot(
                [point["predicted"] for point in points],
                [point["rate"] for point in points],
                markersize=4,
                label=LABELS[name],
                **STYLES[name],
            )
        axes.set_xlabel("mean probability of the bin")
        axes.set_ylabel("rate")
        size = result["support_sizes"][-1]
        title = f"{_spaced(target)} after {size} {_unit(result)}, {ECE_BINS} bins"
        axes.set_title(title, loc="left")
        axes.legend(frameon=False, fontsize=8.5)
    figure.savefig(path)


def _to_html(result: Summary, curve: Path, reliability: Path) -> str:
    tables = _tables(result, marks=("", " *"))
    tables[-1] = PageTable(
        tables[-1].title,
        tables[-1].head,
        tables[-1].rows,
        tables[-1].about,
        picture=inline(reliability),
    )
    return render_page(
        result,
        title=f"{result['protocol']['name']}: {_heading(result)}",
        protocol=_about(result),
        cards=[],
        curve=curve,
        curve_alt=f"{result['judged']['curve']} by support size; the same numbers are below.",
        tables=tables,
    )


def _tables(result: Summary, *, marks: tuple[str, str]) -> list[PageTable]:
    sizes = result["support_sizes"]
    head = [f"{_unit(result)} known", *map(str, sizes)]
    tables = []
    for target in result["judged"]["targets"]:
        for metric in TITLES:
            name = f"{target}_{metric}"
            tables.append(PageTable(_title(target, metric), head, quality_rows(result, name)))
            rows = difference_rows(result, sizes, metric=name, marks=marks)
            if rows and metric in ("log_loss", "gauc"):
                title = f"{_title(target, metric)}: adapted less each other method"
                tables.append(PageTable(title, head, rows, "Same users, 95% interval."))
    if result.get("demand"):
        tables.append(_demand_table(result))
    return [*tables, _tuned(result), _calibration_table(result)]


_DEMAND_HEAD = ["forecast", "WAPE", "adapted less it", "bias"]


def _demand_table(result: Summary) -> PageTable:
    about = (
        f"The last {result['demand']['num_periods']} periods of the horizon's length: buyers of a "
        "category in a period, summed over the users known before it. WAPE is the sum of absolute "
        "errors over that of buyers, bias the sum of errors over it; 95% intervals over periods."
    )
    return PageTable("Demand by category and period", _DEMAND_HEAD, _demand_rows(result), about)


def _demand_rows(result: Summary) -> list[tuple[str, list[str]]]:
    demand = result.get("demand") or {"methods": {}, "differences": {}}
    rows = []
    for name, errors in demand["methods"].items():
        less = demand["differences"].get(name)
        cells = [format_span(errors["wape"]), signed_span(less["wape"]) if less else ""]
        rows.append((LABELS[name], [*cells, signed_span(errors["bias"])]))
    return rows


def _calibration_table(result: Summary) -> PageTable:
    rows = []
    for name in (n for n in (OURS, UNADAPTED) if n in result["calibration"]):
        for target, points in result["calibration"][name].items():
            cells = [f"{p['predicted']:.3f} / {p['rate']:.3f}" for p in points]
            rows.append((f"{LABELS[name]}, {target}", cells))
    width = max((len(cells) for _, cells in rows), default=0)
    head = ["probability / rate of a bin", *map(str, range(1, width + 1))]
    padded = [(label, [*cells, *[""] * (width - len(cells))]) for label, cells in rows]
    return PageTable("Calibration at the largest size", head, padded)


def _tuned(result: Summary) -> PageTable:
    folds = [facts["tuned"] for facts in result["folds"] if facts.get("tuned")]
    rows = []
    for name in folds[0] if folds else ():
        found = [fold[name] for fold in folds if name in fold]
        loss = sum(f["validation_log_loss"] for f in found) / len(found)
        settings = ", ".join(f"{f['setting']:g}" for f in found)
        rows.append((LABELS[name], [str(found[0]["num_configurations"]), f"{loss:.4f}", settings]))
    head = ["baseline", "configurations", "validation log loss", "setting by fold"]
    about = "Settings by the log loss of validation users, added over targets and sizes."
    return PageTable("Baselines", head, rows, about)


def _about(result: Summary) -> str:
    users = ", ".join(f"{n:,} at {s}" for s, n in result["num_users"].items())
    judged = ", ".join(f"{n:,} at {s}" for s, n in result["num_judged"].items())
    return (
        f"{result['judged']['about']} Judged: {judged}; users: {users}. "
        f"{result['protocol']['split']}. ± half of the 95% interval from "
        f"{result['interval']['num_resamples']:,} resamples of users."
    )


def _heading(result: Summary) -> str:
    return f"new users by {_unit(result)} known"


def _unit(result: Summary) -> str:
    return str(result["judged"]["unit"])


def _spaced(target: str) -> str:
    return target.replace("_", " ")


def _title(target: str, metric: str) -> str:
    return f"{_spaced(target).capitalize()} {TITLES[metric]}"
