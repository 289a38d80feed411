"""What tables say of a result, as text cells: for a terminal, a Markdown page and an HTML page."""

from collections.abc import Sequence

from raymeta.data.episodes import ALL_BUT_LAST
from raymeta.evaluation.summary import LABELS, Summary

METRIC_TITLES = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_20": "Recall@20",
    "mrr": "MRR",
    "hit_rate_at_10": "Hit rate@10",
}


def quality_rows(result: Summary, metric: str) -> list[tuple[str, list[str]]]:
    """(label, a cell a support size): mean and half the width of its 95% interval."""
    return [
        (LABELS[name], [format_span(by_size[str(s)][metric]) for s in result["support_sizes"]])
        for name, by_size in result["methods"].items()
    ]


def difference_rows(
    result: Summary,
    sizes: Sequence[int],
    *,
    metric: str = "ndcg_at_10",
    marks: tuple[str, str] = ("**", "**"),
) -> list[tuple[str, list[str]]]:
    """(label of the other method, a cell for each of `sizes`): paired difference in `metric`.

    Differences whose interval leaves out zero stand between the two `marks`.
    """
    rows = []
    for name, by_size in result["differences"].items():
        cells = []
        for size in sizes:
            span = by_size[str(size)][metric]
            text = signed_span(span)
            is_clear = span["low"] > 0 or span["high"] < 0
            cells.append(text.join(marks) if is_clear else text)
        rows.append((f"less {LABELS[name]}", cells))
    return rows


def size_text(size: int) -> str:
    """A support size as a heading has it."""
    return "all but last" if size == ALL_BUT_LAST else str(size)


def format_span(span: dict[str, float]) -> str:
    """`0.505 ±0.010`."""
    return f"{span['mean']:.3f} ±{(span['high'] - span['low']) / 2:.3f}"


def signed_span(span: dict[str, float]) -> str:
    """`+0.005 ±0.010`."""
    mean = round(span["mean"], 3) + 0.0  # no "-0.000"
    return f"{mean:+.3f} ±{(span['high'] - span['low']) / 2:.3f}"


def protocol_text(result: Summary) -> str:
    """What was measured, on whom, in a paragraph."""
    protocol = result["protocol"]
    unit = protocol["unit"]
    masked = "support items stay in" if protocol["repeat"] else "support items taken out"
    users = ", ".join(f"{n:,} at {size_text(int(s))}" for s, n in result["num_users"].items())
    bought = f"a {' or '.join(protocol['positive_events'])} in what came after"
    to_find = f"the catalogue's items with {bought}. The whole catalogue is ranked, {masked}"
    if result.get("scenario") == "search":
        to_find = (
            f"for each of a user's next queries, the items that answer it with {bought}. The items "
            f"that match a query best by text are ordered, {masked}; a user's queries are averaged"
        )
    return (
        f"Support: all events of a user's first v {unit}. To find: {to_find}. "
        f"{protocol['split']}. Means over users (by size: {users}), ± half of "
        f"the 95% interval from {result['interval']['num_resamples']:,} resamples of users. Chance "
        "is the expectation of a random ranking, the ceiling a perfect one."
    )
