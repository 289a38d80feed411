"""The report as one HTML file: pictures inside it, nothing loaded from elsewhere, no script."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from raymeta.evaluation.fold import OURS, UNADAPTED
from raymeta.evaluation.gains import SLICE_TITLES
from raymeta.evaluation.summary import LABELS, Summary, best_baseline
from raymeta.evaluation.tables import (
    METRIC_TITLES,
    difference_rows,
    protocol_text,
    quality_rows,
    signed_span,
    size_text,
)

_TEMPLATES = Environment(
    loader=PackageLoader("raymeta.evaluation", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
Rows = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class PageTable:
    """A titled table; `folded` ones open at a click."""

    title: str
    head: Sequence[str]
    rows: Rows
    about: str = ""
    picture: str = ""
    folded: bool = False


def to_html(result: Summary, *, curve: Path, gains: Path | None) -> str:
    """The page.

    Args:
        result: as `summary.summarise` gives it, with `protocol` and `run`.
        curve: PNG of the support-size curve.
        gains: PNG of how gains differ over users; None where nothing was adapted.
    """
    return render_page(
        result,
        title=f"{result['protocol']['name']}: new users by support size",
        protocol=protocol_text(result),
        cards=_cards(result),
        curve=curve,
        curve_alt="nDCG@10 by support size, and paired differences; the same numbers are below.",
        tables=_tables(result, "" if gains is None else inline(gains)),
    )


def render_page(
    result: Summary,
    *,
    title: str,
    protocol: str,
    cards: Sequence[Mapping[str, str]],
    curve: Path,
    curve_alt: str,
    tables: Sequence[PageTable],
) -> str:
    """A page of any scenario: what was measured, cards, the curve, tables, how it was run."""
    run = result["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return _TEMPLATES.get_template("report.html.j2").render(
        title=title,
        protocol=protocol,
        cards=cards,
        curve=inline(curve),
        curve_alt=curve_alt,
        tables=tables,
        ours=LABELS[OURS],
        command=run["command"],
        run=f"{run['wall_s']:.0f} s, at most {run['peak_memory_mb']:,.0f} MB a process; {versions}",
    )


def _cards(result: Summary) -> list[dict[str, str]]:
    """What adapting brings at each support size, and where the best baseline is."""
    if UNADAPTED not in result["differences"]:
        return []
    unit_of_one = result["protocol"]["unit"].removesuffix("s")
    cards = []
    for size in filter(None, result["support_sizes"]):
        gain = result["differences"][UNADAPTED][str(size)]["ndcg_at_10"]
        best = best_baseline(result, size)
        card = {
            "known": f"{size_text(size)} {result['protocol']['unit'] if size > 1 else unit_of_one}",
            "ndcg": f"{result['methods'][OURS][str(size)]['ndcg_at_10']['mean']:.3f}",
            "gain": f"{signed_span(gain)} by adapting",
            "tone": "good" if gain["low"] > 0 else "bad" if gain["high"] < 0 else "",
            "best": "",
        }
        if best is not None:
            span = result["differences"][best][str(size)]["ndcg_at_10"]
            card["best"] = f"{signed_span(span)} to the best other, {LABELS[best]}"
        cards.append(card)
    return cards


def _tables(result: Summary, gains: str) -> list[PageTable]:
    sizes = result["support_sizes"]
    head = [f"{result['protocol']['unit']} known", *map(size_text, sizes)]
    titles = dict(METRIC_TITLES)
    main = titles.pop("ndcg_at_10")
    tables = [PageTable(main, head, quality_rows(result, "ndcg_at_10"))]
    if result["differences"]:
        about = "Same users, 95% interval; a difference whose interval leaves out zero is marked *."
        rows = difference_rows(result, sizes, marks=("", " *"))
        tables.append(PageTable("nDCG@10: adapted less each other method", head, rows, about))
    if result["gain"]:
        tables.append(_gain_table(result, gains))
    if any(result["slices"].values()):
        tables.append(_slice_table(result))
    for metric, title in titles.items():
        tables.append(PageTable(title, head, quality_rows(result, metric), folded=True))
    return tables


def _gain_table(result: Summary, picture: str) -> PageTable:
    head = [f"{result['protocol']['unit']} known", *result["gain"]]
    by_size = list(result["gain"].values())
    rows = [(share, [f"{g[share]:.1%}" for g in by_size]) for share in ("better", "worse")]
    rows += [
        (f"{float(q):.0%} of users gain less than", [f"{g['quantiles'][q]:+.3f}" for g in by_size])
        for q in by_size[0]["quantiles"]
    ]
    about = (
        "A user's nDCG@10 adapted less unadapted. A list of ten changes in steps, so that the gain "
        "of one user is rough: shares say more than single values."
    )
    return PageTable("Whom adapting helps", head, rows, about, picture)


def _slice_table(result: Summary) -> PageTable:
    unit = result["protocol"]["unit"]
    rows = []
    for size, found in result["slices"].items():
        for part in found:
            span = f"{part['from']} to {part['to']}"
            cells = [
                f"{part['num_users']:,}",
                f"{part['adapted']:.3f}",
                f"{part['unadapted']:.3f}",
                signed_span(part["gain"]),
                f"{part['worse']:.1%}",
            ]
            rows.append((f"{size} {unit}, {span} {SLICE_TITLES[part['of']]}", cells))
    head = ["users with", "users", "adapted", "unadapted", "gain", "worse off"]
    about = "Thirds of the users by how many items are known of them, and by how many are to find."
    return PageTable("Kinds of users (nDCG@10)", head, rows, about, folded=True)


def inline(picture: Path) -> str:
    """A PNG as a data URL."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
