"""`raymeta data describe`: what a prepared data set holds, for people and for programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raymeta.cli.output import emit

app = typer.Typer(help="Look at a prepared data set.", no_args_is_help=True)

_BAR_WIDTH = 40


@app.callback()
def _group() -> None:
    """Look at a prepared data set."""


@app.command()
def describe(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder that `raymeta prepare` wrote.")
    ],
    top: Annotated[int, typer.Option(min=0, help="How many of the top items.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Show counts, span, activity of users, top items, and the refused rows with their reasons.

    Example: raymeta data describe runs/complete-journey/data
    """
    from raymeta.data.describe import describe as look

    emit(look(directory, num_top=top).to_dict(), as_json=as_json, render=_render)


def _render(d: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [
        Text(f"{d['path']}  ({d['source']})", style="bold"),
        Text(),
        _counts(d),
        *_section("Events by type", _bars(_type_rows(d["event_types"]))),
        *_section(
            f"Events of a user (median {d['median_events']:g})",
            _bars(_range_rows(d["events_per_user"]), unit="users"),
        ),
        *_section(
            f"Visits of a user (median {d['median_visits']:g}; {d['visit_rule']})",
            _bars(_range_rows(d["visits_per_user"]), unit="users"),
        ),
    ]
    if d["top_items"]:
        parts += _section(f"Top items by {d['top_event_type']}", _top_items(d["top_items"]))
    parts += _section("Columns", _columns(d))
    parts += _section("Refused rows", _rejected(d["rejected"]))
    if d["notes"]:
        notes = Group(*(Text(f"- {note}") for note in d["notes"]))
        parts += _section("Notes", notes)
    return Group(*parts)


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="bold"), Padding(body, (0, 0, 0, 2))]


def _counts(d: Mapping[str, Any]) -> Table:
    counts = d["counts"]
    table = _plain_table()
    rows = [
        ("events", f"{counts['events']:,}", f"{d['first'][:10]} to {d['last'][:10]} (UTC)"),
        ("users", f"{counts['users']:,}", _of_users(counts)),
        (
            "visits",
            f"{counts['visits']:,}",
            f"{counts['events'] / counts['visits']:.1f} events each",
        ),
        ("items", f"{counts['items_in_log']:,}", _of_items(counts)),
        ("refused", f"{counts['rejected']:,}", f"{counts['rows_read']:,} event rows were read"),
    ]
    for name, number, remark in rows:
        table.add_row(name, Text(number, justify="right"), Text(remark, style="dim"))
    return table


def _of_users(counts: Mapping[str, int]) -> str:
    remarks = [f"{counts['users_with_features']:,} users have features"]
    if counts["users_with_one_event"]:
        remarks.append(f"{counts['users_with_one_event']:,} have one event only")
    return ", ".join(remarks)


def _of_items(counts: Mapping[str, int]) -> str:
    never = counts["items"] - counts["items_in_log"]
    remarks = []
    if counts["items_without_features"]:
        remarks.append(f"{counts['items_without_features']:,} without features")
    if never:
        remarks.append(f"{never:,} more in the item table only")
    return ", ".join(remarks)


def _type_rows(event_types: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(event_types.items(), key=lambda row: -row[1])


def _range_rows(histogram: Sequence[Mapping[str, int]]) -> list[tuple[str, int]]:
    rows = [
        (f"{b['from']:,}" if b["from"] == b["to"] else f"{b['from']:,}-{b['to']:,}", b["users"])
        for b in histogram
    ]
    while rows and rows[0][1] == 0:
        rows.pop(0)
    return rows


def _bars(rows: Sequence[tuple[str, int]], *, unit: str = "") -> Table:
    table = _plain_table()
    largest = max((number for _, number in rows), default=1)
    total = max(1, sum(number for _, number in rows))
    for label, number in rows:
        bar = "█" * round(_BAR_WIDTH * number / largest) or ("▏" if number else "")
        share = Text(f"{number / total:.1%}", style="dim")
        amount = f"{number:,} {unit if number != 1 else unit.removesuffix('s')}".strip()
        table.add_row(
            Text(label, justify="right"),
            Text(amount, justify="right"),
            share,
            Text(bar, style="cyan"),
        )
    return table


def _top_items(items: Sequence[Mapping[str, Any]]) -> Table:
    table = _plain_table()
    for place, item in enumerate(items, start=1):
        table.add_row(
            Text(f"{place}.", justify="right", style="dim"),
            Text(" ".join(item["title"].split()), overflow="ellipsis", no_wrap=True),
            Text(f"{item['events']:,}", justify="right"),
            Text(f"{item['share']:.2%}", style="dim"),
        )
    return table


def _columns(d: Mapping[str, Any]) -> Table:
    table = _plain_table()
    for name, columns in (("items", d["item_columns"]), ("users", d["user_columns"])):
        shown = ", ".join(f"{column} ({kind})" for column, kind in columns.items())
        table.add_row(name, Text(shown or "none"))
    return table


def _rejected(rejected: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not rejected:
        return Text("none")
    table = _plain_table()
    for reason in rejected:
        where = f"{reason['example_source']}:{reason['example_line']}"
        first = Text(
            f"first at {where}: {reason['example_row']}",
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        table.add_row(
            Text(f"{reason['rows']:,}", justify="right"),
            Text(reason["reason"], no_wrap=True),
            first,
        )
    return table


def _plain_table() -> Table:
    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
