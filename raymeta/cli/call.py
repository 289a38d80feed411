"""`raymeta call`: one request to a running service, for trying it out."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymeta.cli.output import emit
from raymeta.errors import ConfigError

if TYPE_CHECKING:
    from raymeta.client import Event
    from raymeta.client.calls import Call
    from raymeta.serve.schemas.recommend import Filter

app = typer.Typer()

Url = Annotated[str, typer.Option(envvar="RAYMETA_URL", help="Where the service answers.")]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="RAYMETA_API_KEY", show_envvar=True, help="API key, if the service has keys."
    ),
]
Tenant = Annotated[str, typer.Option(help="The shop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON line.")]
Count = Annotated[int, typer.Option("--n", min=1, help="How many items.")]
Variant = Annotated[str | None, typer.Option(help="Which model; the default one if not given.")]
Explain = Annotated[bool, typer.Option(help="Say which events moved each item.")]

LOCAL = "http://127.0.0.1:8000"
DEFAULT = "default"


@app.callback()
def call() -> None:
    """Ask a running service.

    Example: raymeta call recommend ann --n 5
    """


@app.command()
def events(
    user: Annotated[str, typer.Argument(help="The user.")],
    items: Annotated[list[str], typer.Argument(help="What the user acted on.")],
    event_type: Annotated[
        str, typer.Option("--type", help="What was done: view, click, cart, purchase, ...")
    ] = "purchase",
    place: Annotated[
        str | None, typer.Option(help="Where it was done: a branch, a channel, a site.")
    ] = None,
    url: Url = LOCAL,
    key: Key = None,
    tenant: Tenant = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Keep events of a user; done once they are durable.

    Example: raymeta call events ann item-1 --type purchase
    """
    from raymeta.client import calls

    _send(lambda: calls.events(user, _events(items, event_type, place)), url, key, tenant, as_json)


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(help="The user, known or not.")],
    n: Count = 10,
    where: Annotated[
        list[str] | None, typer.Option(metavar="FEATURE=VALUE", help="Only items that have this.")
    ] = None,
    explain: Explain = False,
    variant: Variant = None,
    url: Url = LOCAL,
    key: Key = None,
    tenant: Tenant = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Items for a user, adapted to every event so far.

    Example: raymeta call recommend ann --n 5 --where category=shoes
    """
    from raymeta.client import calls

    wanted: Filter = dict(_pair(text) for text in where or [])
    _send(
        lambda: calls.recommend(user, n=n, filter=wanted, explain=explain, variant=variant),
        url,
        key,
        tenant,
        as_json,
    )


@app.command()
def rank(
    user: Annotated[str, typer.Argument(help="The user.")],
    items: Annotated[list[str], typer.Argument(help="The items to order.")],
    query: Annotated[str | None, typer.Option(help="What was searched for.")] = None,
    explain: Explain = False,
    variant: Variant = None,
    url: Url = LOCAL,
    key: Key = None,
    tenant: Tenant = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Put items into a user's order.

    Example: raymeta call rank ann item-1 item-2 item-3
    """
    from raymeta.client import calls

    _send(
        lambda: calls.rank(user, items, query=query, explain=explain, variant=variant),
        url,
        key,
        tenant,
        as_json,
    )


@app.command()
def session(
    items: Annotated[list[str], typer.Argument(help="What the visitor acted on.")],
    event_type: Annotated[str, typer.Option("--type", help="What was done.")] = "purchase",
    n: Count = 10,
    url: Url = LOCAL,
    key: Key = None,
    tenant: Tenant = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Items for a visitor known by these items alone; nothing is kept.

    Example: raymeta call session item-1 item-2 --n 5
    """
    from raymeta.client import calls

    _send(lambda: calls.session(_events(items, event_type), n=n), url, key, tenant, as_json)


@app.command()
def request(
    method: Annotated[str, typer.Argument(help="GET, POST, PUT, PATCH or DELETE.")],
    path: Annotated[str, typer.Argument(help="E.g. /v1/users/ann/state; see /openapi.json.")],
    body: Annotated[str | None, typer.Argument(help="The body, as JSON.")] = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send any request as it is; a tenant stands in the path's query or in the body.

    Example: raymeta call request PATCH /v1/items/shoe-1 '{"available": false}'
    """
    from raymeta.client import calls

    values = _body(body)
    _send(lambda: calls.request(method, path, values), url, key, DEFAULT, as_json)


def _send(
    make: "Callable[[], Call[Any]]", url: str, key: str | None, tenant: str, as_json: bool
) -> None:
    """Makes a call and prints its answer."""
    from raymeta.client import Client
    from raymeta.client.connection import built

    with Client(url, key=key, tenant=tenant) as client:
        answer = client.send(built(make))
    if hasattr(answer, "model_dump"):
        answer = answer.model_dump()
    emit(
        answer if isinstance(answer, dict) else {"answer": answer}, as_json=as_json, render=_render
    )


def _events(items: list[str], event_type: str, place: str | None = None) -> "list[Event]":
    from raymeta.client import Event

    return [Event(item_id=item, event_type=event_type, place=place) for item in items]


def _pair(text: str) -> tuple[str, str | float | bool]:
    """`price=5` as a feature and a value: a number or a truth value where it reads as one."""
    feature, equals, value = text.partition("=")
    if not feature or not equals:
        raise ConfigError(
            f"--where is {text!r}.", remedy="Write FEATURE=VALUE, e.g. category=shoes."
        )
    try:
        known = json.loads(value)
    except ValueError:
        return feature, value
    return feature, known if isinstance(known, (bool, int, float)) else value


def _body(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"The body is not JSON: {error}.", remedy="Quote it: '{\"n\": 5}'."
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"The body is {text!r}.", remedy="Write a JSON object.")
    return values


def _render(answer: dict[str, Any]) -> str | Group:
    """A table of items with the rest below; any other answer as JSON over lines."""
    items = answer.get("items")
    if not isinstance(items, list) or not all("reasons" in item for item in items):
        return json.dumps(answer, indent=2, ensure_ascii=False)
    table = Table()
    for column in ("item", "score", "for anybody", "because of"):
        table.add_column(column, justify="left" if column in ("item", "because of") else "right")
    for item in items:
        reasons = ", ".join(
            f"{r['event_type']} of {r['item_id']} ({r['effect']:+.2f})"
            for r in item["reasons"] or []
        )
        table.add_row(item["id"], f"{item['score']:.3f}", f"{item['prior_score']:.3f}", reasons)
    facts = {name: value for name, value in answer.items() if name != "items"}
    return Group(table, Text(json.dumps(facts, ensure_ascii=False)))
