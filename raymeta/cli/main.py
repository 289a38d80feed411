"""The console entry: finds the verb, imports only its module, and turns errors into exit codes.

    0   done
    1   failed
    2   the request was wrong: an option, a setting, a file, or more than the machine has
    130 interrupted by Ctrl-C

`raymeta job submit` is the exception: it ends with the exit code of the job that it follows.
Leaves what a verb does to its module, and what an error means to `raymeta.errors`.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, NamedTuple, NoReturn

import typer
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

import raymeta
from raymeta.cli.output import console
from raymeta.errors import RaymetaError
from raymeta.observability import logs

INTERRUPTED = 130
"""What shells report for a process that Ctrl-C ended: 128 + SIGINT."""


class Verb(NamedTuple):
    """Where a verb lives: a function, or a `typer.Typer` where it has verbs of its own."""

    module: str
    attribute: str
    summary: str


VERBS: dict[str, Verb] = {
    "demo": Verb("raymeta.cli.demo", "demo", "The whole way once, on a real grocery log."),
    "prepare": Verb("raymeta.cli.prepare", "prepare", "Turn a shop's log into a data set."),
    "data": Verb("raymeta.cli.data", "app", "Look at a prepared data set."),
    "train": Verb("raymeta.cli.train", "train", "Meta-train a recommender into an artifact."),
    "tune": Verb("raymeta.cli.tune", "tune", "Search how the inner steps should be taken."),
    "evaluate": Verb("raymeta.cli.evaluate", "evaluate", "Score an artifact beside baselines."),
    "serve": Verb("raymeta.cli.serve", "serve", "Answer over HTTP with an artifact."),
    "call": Verb("raymeta.cli.call", "app", "Ask a running endpoint."),
    "bench": Verb("raymeta.cli.bench", "app", "Measure a running endpoint under load."),
    "job": Verb("raymeta.cli.job", "app", "Run a verb on a Ray cluster, and follow it."),
    "config": Verb("raymeta.cli.config", "app", "Check, show and compare settings files."),
}
"""Every verb, in the order of a first use. A verb's module is imported when it is called."""


def main() -> NoReturn:
    """The `raymeta` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line, e.g. `["config", "check", "shop.yaml"]`; returns its exit code."""
    called = next((word for word in arguments if word in VERBS), None)
    command = typer.main.get_command(build_app(called))
    try:
        command.main(args=list(arguments), prog_name="raymeta")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except RaymetaError as error:
        logs.logger(__name__).debug("the command failed", exc_info=error)
        show_error(error.message, remedy=error.remedy)
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        logs.logger(__name__).debug("the command failed", exc_info=error)
        show_error(
            _what_the_system_said(error), remedy="Check the path, its rights and free space."
        )
        return 1
    else:
        code = 0
    if code == INTERRUPTED:
        console.print("Interrupted.")
    return code


def build_app(called: str | None = None) -> typer.Typer:
    """The command line with the verb `called` in full, and the others as names with a summary."""
    app = typer.Typer(
        name="raymeta",
        help="Recommendations that fit a new shopper after a handful of events.",
        epilog="Start with: raymeta demo. Help on a verb: raymeta VERB --help.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_global_options)
    for name, verb in VERBS.items():
        if name != called:
            app.command(name, help=verb.summary)(_not_called)
            continue
        target = getattr(importlib.import_module(verb.module), verb.attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, no_args_is_help=True)
        else:
            app.command(name)(target)
    return app


def show_error(message: str, *, remedy: str = "") -> None:
    """One clear error on stderr: what happened and the value, then what to do."""
    parts = [Text(message)]
    if remedy:
        parts.append(Text(remedy, style="bold"))
    if console.is_terminal:
        console.print(Panel(Group(*parts), title="Error", title_align="left", border_style="red"))
    else:
        # a log keeps one line a fact, and a search finds the words unbroken
        console.print(Text("Error: ") + parts[0], soft_wrap=True)
        for part in parts[1:]:
            console.print(part, soft_wrap=True)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    typer.echo(raymeta.__version__)
    raise typer.Exit


def _global_options(
    log_level: Annotated[
        logs.Level,
        typer.Option(help="What reaches stderr; `debug` adds where an error came from."),
    ] = logs.Level.WARNING,
    log_format: Annotated[
        logs.Format, typer.Option(help="Log lines for people, or JSON for a collector.")
    ] = logs.Format.TEXT,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version)
    ] = False,
) -> None:
    del version
    logs.configure(log_level, log_format)


def _not_called() -> None:
    raise AssertionError("a verb that is called is built in full")


def _what_the_system_said(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."
