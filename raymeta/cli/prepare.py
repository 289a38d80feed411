"""`raymeta prepare`: a shop's log becomes a data set, with its progress and what to do next."""

import contextlib
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from raymeta.cli.output import console, emit
from raymeta.errors import ConfigError


class SourceName(StrEnum):
    """Where a log comes from."""

    COMPLETE_JOURNEY = "complete-journey"
    COUPON_CAMPAIGNS = "complete-journey-campaigns"
    ONLINE_RETAIL = "online-retail"
    MOVIELENS = "movielens"
    KUAIRAND = "kuairand"
    FILES = "files"
    SYNTHETIC = "synthetic"


class TaskRole(StrEnum):
    """What a task is."""

    USERS = "users"
    ITEMS = "items"


# The options that only some sources read; another source with one of them is a mistake to report.
_OWN_OPTIONS = {
    "--path": (
        SourceName.COMPLETE_JOURNEY,
        SourceName.COUPON_CAMPAIGNS,
        SourceName.ONLINE_RETAIL,
        SourceName.MOVIELENS,
        SourceName.KUAIRAND,
    ),
    "--events": (SourceName.FILES,),
    "--items": (SourceName.FILES,),
    "--users": (SourceName.FILES,),
    "--schema": (SourceName.FILES,),
    "--infer-schema": (SourceName.FILES,),
    "--num-users": (SourceName.SYNTHETIC,),
    "--num-visits": (SourceName.SYNTHETIC,),
    "--seed": (SourceName.SYNTHETIC,),
}


def prepare(
    source: Annotated[SourceName, typer.Argument(help="Where the log comes from.")],
    out: Annotated[Path | None, typer.Option(help="The folder to make.")] = None,
    path: Annotated[
        Path | None,
        typer.Option(help="online-retail, movielens, kuairand: the folder or zip with its files."),
    ] = None,
    events: Annotated[
        list[Path] | None,
        typer.Option(help="files: event files or folders (CSV, JSON Lines, Parquet); repeatable."),
    ] = None,
    items: Annotated[Path | None, typer.Option(help="files: the item table.")] = None,
    users: Annotated[Path | None, typer.Option(help="files: the user table.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="files: what the columns are called; a schema.yaml.")
    ] = None,
    infer_schema: Annotated[
        bool,
        typer.Option("--infer-schema", help="files: write a first schema.yaml to edit, and end."),
    ] = False,
    num_users: Annotated[
        int | None, typer.Option(min=1, help="synthetic: shoppers (2,000).")
    ] = None,
    num_visits: Annotated[
        int | None, typer.Option(min=1, help="synthetic: visits of 13 events (20 a shopper).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="synthetic: what it is made from (0).")] = None,
    tasks: Annotated[
        TaskRole,
        typer.Option(help="What is new and adapted to: `items` exchanges the roles of the two."),
    ] = TaskRole.USERS,
    visit_gap_minutes: Annotated[
        float,
        typer.Option(min=0, help="A longer pause starts a visit, where the log names none."),
    ] = 30.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a data set that stands there.")
    ] = False,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Read and order on Ray, for logs of many files.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="With --ray: a running cluster.", envvar="RAY_ADDRESS")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Turn a shop's log into a data set: events, items, users, and one task a user.

    A row that cannot be used is counted and kept, with its reason, in rejected.parquet.

    Example: raymeta prepare files --events events.csv --schema schema.yaml --out data

    Example: raymeta prepare complete-journey --out runs/complete-journey/data

    Example: raymeta prepare kuairand --path FOLDER --tasks items --out runs/kuairand-items/data
    """
    given = {
        "--path": path,
        "--events": events,
        "--items": items,
        "--users": users,
        "--schema": schema,
        "--infer-schema": infer_schema or None,
        "--num-users": num_users,
        "--num-visits": num_visits,
        "--seed": seed,
    }
    _refuse_foreign_options(source, given)
    if infer_schema:
        _write_inferred(events or [], items=items, users=users, out=out, as_json=as_json)
        return
    if out is None:
        raise ConfigError("--out is missing.", remedy="Name the folder to make with --out DIR.")
    from raymeta.data.prepare import prepare as run

    started_s = time.monotonic()
    console.print(f"Preparing {source.value} into {out} ...")
    with _runner(address, on_ray=on_ray) as runner, _progress() as report:
        prepared = run(
            _with_tasks(_source(source, given), tasks),
            out,
            overwrite=overwrite,
            visit_gap_minutes=visit_gap_minutes,
            progress=report,
            runner=runner,
        )
    manifest = prepared.manifest
    summary = {
        "path": prepared.path,
        "source": manifest["source"],
        "counts": manifest["counts"],
        "rejected": manifest["rejected"],
        "event_types": manifest["event_types"],
        "notes": manifest["notes"],
        "elapsed_s": round(time.monotonic() - started_s, 1),
    }
    emit(summary, as_json=as_json, render=_render)


@contextlib.contextmanager
def _runner(address: str | None, *, on_ray: bool) -> Iterator[Any]:
    """What runs the passes: this process, or one cluster for all of them."""
    if not on_ray:
        from raymeta.data.prepare import run_in_process

        yield run_in_process
        return
    from raymeta import runtime
    from raymeta.data.pipeline import RayRunner

    with runtime.session(address):
        yield RayRunner(address)


def _source(name: SourceName, given: dict[str, Any]) -> Any:
    if name is SourceName.COMPLETE_JOURNEY:
        from raymeta.data.sources.complete_journey import CompleteJourney

        return CompleteJourney(given["--path"])
    if name is SourceName.COUPON_CAMPAIGNS:
        from raymeta.data.sources.coupon_campaigns import CouponCampaigns

        return CouponCampaigns(given["--path"])
    if name is SourceName.SYNTHETIC:
        from raymeta.data.sources.synthetic import SyntheticShop
        from raymeta.data.synthetic_shop import Shop

        num_users = given["--num-users"] or Shop.num_users
        num_visits = given["--num-visits"] or 20 * num_users
        return SyntheticShop(
            Shop(num_users=num_users, num_visits=num_visits, seed=given["--seed"] or 0)
        )
    if name is SourceName.FILES:
        from raymeta.data.schema import load_log_schema
        from raymeta.data.sources.files import Files

        loaded = load_log_schema(given["--schema"]) if given["--schema"] else None
        return Files(
            given["--events"] or [], items=given["--items"], users=given["--users"], schema=loaded
        )
    if given["--path"] is None:
        raise ConfigError(
            f"{name.value} needs --path.", remedy="Name the folder that holds its files."
        )
    if name is SourceName.MOVIELENS:
        from raymeta.data.sources.movielens import MovieLens

        return MovieLens(given["--path"])
    if name is SourceName.KUAIRAND:
        from raymeta.data.sources.kuairand import KuaiRand

        return KuaiRand(given["--path"])
    from raymeta.data.sources.online_retail import OnlineRetail

    return OnlineRetail(given["--path"])


def _with_tasks(source: Any, tasks: TaskRole) -> Any:
    if tasks is TaskRole.USERS:
        return source
    from raymeta.data.sources.swapped import Swapped

    return Swapped(source)


def _refuse_foreign_options(source: SourceName, given: dict[str, Any]) -> None:
    for option, sources in _OWN_OPTIONS.items():
        if given[option] is not None and source not in sources:
            readers = ", ".join(name.value for name in sources)
            raise ConfigError(
                f"{option} means nothing to {source.value}.",
                remedy=f"Leave it out; it is read by {readers}.",
            )


def _write_inferred(
    events: list[Path], *, items: Path | None, users: Path | None, out: Path | None, as_json: bool
) -> None:
    """Writes `schema.yaml`, never over one that stands there: it may have been edited."""
    from raymeta.data.infer_schema import UNKNOWN, infer_schema, schema_text

    if not events:
        raise ConfigError("No event file is given.", remedy="Name it with --events FILE.")
    target = (out or Path()) / "schema.yaml"
    if target.exists():
        raise ConfigError(
            f"{target} exists already.", remedy="Move it away, or name another folder with --out."
        )
    named = [("--events", path) for path in events]
    named += [(o, p) for o, p in (("--items", items), ("--users", users)) if p is not None]
    options = " ".join(f"{option} {path}" for option, path in named)
    text = schema_text(infer_schema(events, items=items, users=users), options=options)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    todo = [line.strip() for line in text.splitlines() if line.endswith(UNKNOWN)]
    emit(
        {"schema": target, "to_fill_in": todo, "options": options},
        as_json=as_json,
        render=_render_inferred,
    )


def _render_inferred(result: dict[str, Any]) -> str:
    lines = [f"Wrote {result['schema']}. Check every line of it."]
    lines += [f"  to fill in: {line}" for line in result["to_fill_in"]]
    command = f"raymeta prepare files {result['options']} --schema {result['schema']} --out DIR"
    return "\n".join([*lines, "", "Then:", f"  {command}"])


def _render(result: dict[str, Any]) -> str:
    counts = result["counts"]
    lines = [
        f"{_many(counts['events'], 'event')} of {_many(counts['users'], 'user')} on "
        f"{_many(counts['items_in_log'], 'item')}, in {_many(counts['visits'], 'visit')} "
        f"({result['elapsed_s']:.1f} s).",
    ]
    if counts["rejected"]:
        lines.append(
            f"{_many(counts['rejected'], 'row')} refused; see {result['path']}/rejected.parquet:"
        )
        lines += [f"  {rows:>12,}  {reason}" for reason, rows in result["rejected"].items()]
    else:
        lines.append("No row was refused.")
    if counts["users_with_one_event"]:
        lines.append(
            f"{_many(counts['users_with_one_event'], 'user')} with one event only: kept in the "
            "data, but one event cannot be both learnt from and predicted."
        )
    lines += [f"Note: {note}" for note in result["notes"]]
    experiment = _EXPERIMENTS.get(result["source"], "CONFIG.yaml")
    lines += [
        "",
        "Next:",
        f"  raymeta data describe {result['path']}",
        f"  raymeta train {experiment} --data {result['path']}",
    ]
    return "\n".join(lines)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


_EXPERIMENTS = {
    "complete-journey": "tune_configs/experiments/complete_journey.yaml",
    "complete-journey-campaigns": "tune_configs/experiments/complete_journey_campaigns.yaml",
    "online-retail": "tune_configs/experiments/online_retail.yaml",
    "kuairand": "tune_configs/experiments/kuairand_ads.yaml",
    "synthetic": "tune_configs/experiments/synthetic_shop.yaml",
}


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A bar a stage, on stderr, gone when the work is done; nothing where stderr is no terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        Elapsed(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        stages: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done, total=total)

        yield report
