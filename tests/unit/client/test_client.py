"""Both clients against the service itself: every route, its types, its errors, its pages."""

import asyncio
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from raymeta.client import AsyncClient, Client, Event, NamedItem, Pin, Range, Retries, calls
from raymeta.client.calls import Call
from raymeta.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    RequestError,
    ServiceError,
    UnauthenticatedError,
    UnknownItemError,
    UnknownUserError,
)
from raymeta.serve.access import KeyConfig, Keys, Scope
from raymeta.serve.ingress import create_app
from raymeta.serve.schemas.base import Message
from raymeta.serve.service import Service
from raymeta.serve.user_events.base import Retention
from raymeta.serve.user_events.memory import MemoryEventStore
from tests.helpers.clocks import Clock
from tests.helpers.http import listening

BOUGHT = Event(item_id="item2", event_type="purchase", event_id="e1")
FEATURES = {"category": "red", "price": 5.0}

# in an order in which each finds what it asks for
EXAMPLES: dict[str, Callable[[], Call[Any]]] = {
    "events": lambda: calls.events("a/b", [BOUGHT]),
    "recommend": lambda: calls.recommend(
        "a/b",
        n=3,
        events=[Event(item_id="item4", event_type="purchase", event_id="e2")],
        filter={"price": Range(min=1.0), "category": ["red", "blue"]},
        exclude=["item1"],
        pins=[Pin(item_id="item7", position=0)],
        explain=True,
    ),
    "rank": lambda: calls.rank("a/b", ["item1", "item3", "nowhere"]),
    "session": lambda: calls.session([BOUGHT], n=2),
    "put_user": lambda: calls.put_user("a/b", {"country": "DE"}),
    "patch_user": lambda: calls.patch_user("a/b", {"country": None, "age": 3}),
    "user": lambda: calls.user("a/b"),
    "user_state": lambda: calls.user_state("a/b", variant="default"),
    "export_user": lambda: calls.export_user("a/b"),
    "put_item": lambda: calls.put_item("new/1", FEATURES),
    "put_items": lambda: calls.put_items([NamedItem(item_id="new2", features=FEATURES)]),
    "patch_item": lambda: calls.patch_item("new/1", {"price": 6.0}, available=False),
    "item": lambda: calls.item("new/1"),
    "delete_item": lambda: calls.delete_item("new/1"),
    "events_page": lambda: calls.events_page(users=1),
    "models": lambda: calls.models(),
    "experiments": lambda: calls.experiments(),
    "online_metrics": lambda: calls.online_metrics(click_hours=1.5),
    "ready": lambda: calls.ready(),
    "request": lambda: calls.request("get", "/healthz"),
    "erase_user": lambda: calls.erase_user("a/b"),
}
REFUSED = {"predict": lambda: calls.predict("a/b", ["item1"], targets=["click"])}


def functions() -> set[str]:
    return {
        name
        for name, value in vars(calls).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__module__ == calls.__name__
    }


def over(service: Service, **options: Any) -> AsyncClient:
    transport = httpx.ASGITransport(app=create_app(service))
    return AsyncClient("http://test", transport=transport, **options)


def ask(service: Service, make: Callable[[], Call[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with over(service, **options) as client:
            return await client.send(make())

    return asyncio.run(run())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_each_client_has_a_method_for_every_call_with_its_arguments(kind: type) -> None:
    assert functions() == {*EXAMPLES, *REFUSED}
    for name in functions():
        method, build = getattr(kind, name), getattr(calls, name)
        assert method.__doc__ == build.__doc__
        signature = inspect.signature(method)
        assert list(signature.parameters)[1:] == list(inspect.signature(build).parameters)
        assert inspect.iscoroutinefunction(method) is (kind is AsyncClient)


def test_every_route_that_the_service_describes_has_a_call(service: Service) -> None:
    described = {
        (method.upper(), path)
        for path, methods in create_app(service).openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    called = set()
    for make in (*EXAMPLES.values(), *REFUSED.values()):
        call = make()
        path = call.path.replace("a%2Fb", "{user_id}").replace("new%2F1", "{item_id}")
        called.add((call.method, path))
    assert described <= called, "add a function to raymeta/client/calls.py"


def test_every_call_is_answered_as_its_type_the_same_over_a_socket_and_in_a_loop(
    make_service: Callable[..., Service], clock: Clock
) -> None:
    one, two = (
        make_service(of=MemoryEventStore(retention=Retention(events=100), now_ms=clock))
        for _ in range(2)
    )
    with listening(create_app(one)) as url, Client(url) as client:
        waited = {name: client.send(make()) for name, make in EXAMPLES.items()}
    for name, make in EXAMPLES.items():
        assert plain(ask(two, make)) == plain(waited[name]), name
    assert waited["recommend"].items[0].id == "item7"
    assert waited["recommend"].events.accepted == 1
    assert waited["rank"].unknown_items == ["nowhere"]
    assert waited["patch_user"].features == {"age": 3}
    assert waited["item"].available is False
    assert waited["events_page"].next_after == "a/b"
    assert waited["request"] == {"status": "ok"}
    for make in REFUSED.values():
        with pytest.raises(InvalidRequestError, match="not trained for the scenario 'ads'"):
            ask(two, make)


def plain(answer: Any) -> Any:
    if not isinstance(answer, Message):
        return answer
    return answer.model_dump(exclude={"took_ms", "recommendation_id"})


def test_the_documented_way(service: Service) -> None:
    with listening(create_app(service)) as url, Client(url) as client:
        client.events("ann", [Event(item_id="item2", event_type="purchase")])
        assert [item.id for item in client.recommend("ann", n=1).items] == ["item3"]

    async def awaited() -> list[str]:
        async with over(service) as client:
            return [item.id for item in (await client.recommend("ann", n=1)).items]

    assert asyncio.run(awaited()) == ["item3"]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def guarded(make_service: Callable[..., Service]) -> Service:
    keys = [
        KeyConfig(name="reader", sha256=digest("r"), scopes=(Scope.READ,)),
        KeyConfig(name="mine", sha256=digest("m"), scopes=tuple(Scope), tenants=("other",)),
        KeyConfig(name="all", sha256=digest("a"), scopes=tuple(Scope)),
    ]
    return make_service(keys=Keys(keys))


@pytest.mark.parametrize(
    ("options", "make", "kind", "text"),
    [
        ({}, calls.models, UnauthenticatedError, "has no API key"),
        ({"key": "r"}, EXAMPLES["events"], ForbiddenError, "has not the scope 'write'"),
        ({"key": "m"}, calls.models, ForbiddenError, "does not open the tenant 'default'"),
        ({"key": "a"}, lambda: calls.user("nobody"), UnknownUserError, "no events of user"),
        ({"key": "a"}, lambda: calls.item("no"), UnknownItemError, "There is no item 'no'"),
        ({"key": "a"}, lambda: calls.request("GET", "/v2"), RequestError, "nothing at /v2"),
        ({"key": "a"}, lambda: calls.request("PUT", "/v1/events"), InvalidRequestError, "PUT"),
        (
            {"key": "a"},
            lambda: calls.request("POST", "/v1/recommend", {"user_id": "u", "m": 1}),
            InvalidRequestError,
            "m: is not a key that this request has",
        ),
        (
            {"key": "a"},
            lambda: calls.recommend("u", filter={"colour": "red"}),
            InvalidRequestError,
            "'colour'",
        ),
    ],
)
def test_refusals_are_raised_by_kind_with_the_services_words(
    guarded: Service, options: dict[str, Any], make: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        ask(guarded, make, **options)
    assert type(caught.value) is kind
    assert caught.value.__notes__[0].startswith("request id ")


def test_an_id_used_before_with_another_content(guarded: Service) -> None:
    ask(guarded, EXAMPLES["events"], key="a")
    other = Event(item_id="item3", event_type="purchase", event_id="e1")
    with pytest.raises(ConflictError, match="'e1'"):
        ask(guarded, lambda: calls.events("a/b", [other]), key="a")


def test_a_tenant_is_named_where_each_route_looks_for_it(guarded: Service) -> None:
    for name, make in EXAMPLES.items():
        if name != "request":
            assert ask(guarded, make, key="m", tenant="other") is not None
    with pytest.raises(UnknownUserError, match="tenant 'default'"):
        ask(guarded, EXAMPLES["user"], key="a")


def test_values_that_cannot_be_sent_are_refused_before(service: Service) -> None:
    with Client("http://test") as client:
        with pytest.raises(InvalidRequestError, match=r"^n: .*greater than or equal to 1.*Nothing"):
            client.recommend("ann", n=0)
        with pytest.raises(InvalidRequestError, match="diversity would make the propensities"):
            client.recommend("ann", diversity=0.5, exploration=1.0)
    with pytest.raises(ConfigError, match=r"Write it with its scheme"):
        Client("127.0.0.1:8000")


@pytest.fixture
def shop(service: Service) -> Iterator[Service]:
    for user in ("ann", "bob", "zoë/ü"):
        ask(
            service,
            lambda user=user: calls.events(
                user, [BOUGHT, Event(item_id="item1", event_type="view")]
            ),
        )
    return service


@pytest.mark.parametrize("users_a_page", [1, 2, 100])
def test_pages_are_read_to_the_end(shop: Service, users_a_page: int) -> None:
    with listening(create_app(shop)) as url, Client(url) as client:
        waited = list(client.export_events(users_a_page=users_a_page))

    async def awaited() -> list[dict[str, Any]]:
        async with over(shop) as client:
            return [event async for event in client.export_events(users_a_page=users_a_page)]

    assert waited == asyncio.run(awaited())
    assert [event["user_id"] for event in waited] == ["ann"] * 2 + ["bob"] * 2 + ["zoë/ü"] * 2


def test_a_newer_service_may_say_more() -> None:
    def newer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "ready", "models": {}, "mood": "good"})

    with Client("http://test", transport=httpx.MockTransport(newer)) as client:
        assert client.ready().status == "ready"


@pytest.mark.parametrize("content", [b"<html>", b'{"status": "ready"}'])
def test_what_is_no_raymeta_service_is_said(content: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=content))
    with (
        Client("http://test", transport=transport) as client,
        pytest.raises(ServiceError, match=r"GET http://test/readyz was answered with something"),
    ):
        client.ready()


def test_a_proxys_refusal_is_shown(service: Service) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(502, text="Bad\n Gateway"))
    client = Client("http://test", transport=transport, retries=Retries(attempts=1))
    with client, pytest.raises(ServiceError, match=r"http://test/readyz answered 502: Bad Gateway"):
        client.ready()


def test_importing_the_client_imports_neither_torch_nor_ray() -> None:
    code = (
        "import json, sys, raymeta.client; "
        "heavy = ('torch', 'ray', 'fastapi', 'starlette', 'numpy', 'pandas', 'pyarrow'); "
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
