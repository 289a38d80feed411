"""The report of predicted ratings: a table a metric, as JSON and as pages, and a curve."""

import json
from collections.abc import Sequence
from pathlib import Path

from raymeta.evaluation.fold import FoldScores
from raymeta.evaluation.page import PageTable, render_page
from raymeta.evaluation.plots import draw_curve
from raymeta.evaluation.ratings import RATING_METRICS
from raymeta.evaluation.report import RESULTS, markdown_table, replacing, run_lines
from raymeta.evaluation.scenarios.base import TextTable
from raymeta.evaluation.summary import LABELS, Summary, pool, summarise_metrics
from raymeta.evaluation.tables import difference_rows, quality_rows

TITLES = {
    "mae": "MAE",
    "ndcg_at_3": "nDCG@3 of ratings",
    "precision_at_5": "Precision@5",
    "ndcg_at_5": "nDCG@5",
    "mrr_at_5": "MRR@5",
    "click_ndcg_at_5": "nDCG@5 of liked items",
}
_OF_SOME = "click_ndcg_at_5"  # of the users who like something that was held back


def summarise(scores: Sequence[FoldScores], *, seed: int = 0) -> Summary:
    """Means with intervals and paired differences, by method and size, of all metrics."""
    table = pool(scores, RATING_METRICS)
    result = summarise_metrics(table, [m for m in RATING_METRICS if m != _OF_SOME], seed=seed)
    of_some = summarise_metrics(table[table[_OF_SOME].notna()], [_OF_SOME], seed=seed)
    for part in ("methods", "differences"):
        for name, by_size in result[part].items():
            for size, metrics in by_size.items():
                metrics.update(of_some[part][name][size])
    return {**result, "folds": [part.facts for part in scores if part.facts]}


def write_report(result: Summary, scores: Sequence[FoldScores], folder: Path) -> None:
    """Writes the report's files into `folder`, as the report of ranking does.

    Raises:
        DataError: the folder is there and is not a report's.
    """
    with replacing(folder) as partial:
        pool(scores, RATING_METRICS).to_parquet(partial / "per_user.parquet", index=False)
        curve = partial / "curve.png"
        draw_curve(result, curve, metric=_main(result))
        (partial / "report.md").write_text(to_markdown(result), encoding="utf-8")
        page = render_page(
            result,
            title=_title(result),
            protocol=_about(result),
            cards=[],
            curve=curve,
            curve_alt=f"{TITLES[_main(result)]} by ratings known; the same numbers are below.",
            tables=_tables(result, marks=("", " *")),
        )
        (partial / "report.html").write_text(page, encoding="utf-8")
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (partial / RESULTS).write_text(text + "\n", encoding="utf-8")


def text_tables(result: Summary) -> tuple[list[TextTable], list[str]]:
    """For a terminal: every metric, and paired differences of the two that are judged by."""
    sizes = result["support_sizes"]
    tables = [
        TextTable(f"{title} after so many ratings", sizes, quality_rows(result, metric))
        for metric, title in TITLES.items()
    ]
    for metric in ("mae", "ndcg_at_5"):
        rows = difference_rows(result, sizes, metric=metric, marks=("[bold]", "[/bold]"))
        if rows:
            title = f"{TITLES[metric]}: adapted less each other method, paired by user"
            tables.append(TextTable(title, sizes, rows))
    return tables, ["A lower MAE is better; bold where clear of zero."]


def to_markdown(result: Summary) -> str:
    """The report as a page."""
    sections = [f"# {_title(result)}", _about(result)]
    for table in _tables(result, marks=("**", "**")):
        sections.append(f"## {table.title}\n\n{table.about}".rstrip())
        sections.append(markdown_table(table.head, table.rows))
    return "\n\n".join([*sections, run_lines(result)]) + "\n"


def _tables(result: Summary, *, marks: tuple[str, str]) -> list[PageTable]:
    sizes = result["support_sizes"]
    head = ["ratings known", *map(str, sizes)]
    tables = []
    for metric, title in TITLES.items():
        tables.append(PageTable(title, head, quality_rows(result, metric)))
        rows = difference_rows(result, sizes, metric=metric, marks=marks)
        if rows:
            about = "Same users, 95% interval."
            tables.append(PageTable(f"{title}: adapted less each other method", head, rows, about))
    return [*tables, _tuned(result)]


def _tuned(result: Summary) -> PageTable:
    folds = [facts["tuned"] for facts in result["folds"] if facts.get("tuned")]
    rows = []
    for name in folds[0] if folds else ():
        chosen = dict.fromkeys(
            ", ".join(f"{key} {value:g}" for key, value in fold[name]["settings"].items())
            for fold in folds
        )
        count = str(folds[0][name]["num_configurations"])
        quality = sum(fold[name]["validation"] for fold in folds) / len(folds)
        rows.append((LABELS[name], [count, f"{quality:.4f}", "; ".join(chosen)]))
    head = ["baseline", "configurations", "validation", "settings by fold"]
    about = "Settings by validation users, over all sizes from 1 on; an error has its sign turned."
    return PageTable("Baselines", head, rows, about)


def _about(result: Summary) -> str:
    users = ", ".join(f"{n:,} at {s}" for s, n in result["num_users"].items())
    scenario = _scenario(result)
    held = f"a user's last {scenario.get('num_query', '')} ratings are"
    known = "the last k of those before them"
    if scenario.get("query") == "random":
        held = (
            f"{scenario['num_query']} ratings of a user, drawn {scenario['num_draws']} times, are"
        )
        known = "the last k of all others"
    cold = max((facts.get("num_cold_items", 0) for facts in result["folds"]), default=0)
    if cold:
        held = f"{held.removesuffix(' are')} that are of items known by their features only are"
        known = f"{known}, without such items"
    return (
        f"Held back: {held} predicted, and only they are put in order. Known: {known} (users: "
        f"{users}). {result['protocol']['split']}. ± half of the 95% interval from "
        f"{result['interval']['num_resamples']:,} resamples of users. Chance is a random order and "
        "the mean of all ratings; the ceiling is the ratings themselves. Precision, MRR and nDCG@5 "
        "are of the better half of the held-back items, ties at its border cut at random."
    )


def _scenario(result: Summary) -> dict[str, object]:
    found = [facts["scenario"] for facts in result["folds"] if "scenario" in facts]
    return found[0] if found else {}


def _main(result: Summary) -> str:
    return "ndcg_at_5" if _scenario(result).get("judged_by") == "order" else "mae"


def _title(result: Summary) -> str:
    return f"{result['protocol']['name']}: ratings of new users by ratings known"
