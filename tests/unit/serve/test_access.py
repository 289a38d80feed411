"""Keys: every route asks for one, scopes and tenants hold, and a key is never shown."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from raymeta.errors import ConfigError
from raymeta.serve.access import (
    ANYBODY,
    KeyConfig,
    Keys,
    Scope,
    is_loopback,
    new_key,
    require_keys_on,
)
from raymeta.serve.ingress import create_app
from raymeta.serve.routes.operations import PUBLIC_PATHS
from raymeta.serve.service import Service
from tests.unit.serve.conftest import caller
from tests.unit.serve.test_ingress import problem, purchase

BODIES: dict[str, dict[str, Any]] = {
    "/v1/events": {"user_id": "u", "events": [purchase("item1")]},
    "/v1/recommend": {"user_id": "u"},
    "/v1/rank": {"user_id": "u", "items": ["item1"]},
    "/v1/predict": {"user_id": "u", "items": ["item1"], "targets": ["click"]},
    "/v1/session/recommend": {},
    "/v1/items:batch": {"items": [{"item_id": "new"}]},
    "/v1/items/item1": {"features": {}},
    "/v1/users/u": {"features": {}},
}


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key(name: str, *scopes: Scope, tenants: tuple[str, ...] | None = None) -> KeyConfig:
    return KeyConfig(name=name, sha256=hashed(name), scopes=scopes, tenants=tenants)


KEYS = Keys(
    [
        key("reader", Scope.READ),
        key("writer", Scope.WRITE),
        key("both", Scope.READ, Scope.WRITE),
        key("admin", Scope.ADMIN),
        key("all", *Scope),
        key("mine", *Scope, tenants=("default",)),
    ]
)


@pytest.fixture
def guarded(make_service: Callable[..., Service]) -> Service:
    return make_service(keys=KEYS)


@pytest.fixture
def call(guarded: Service) -> Callable[..., httpx.Response]:
    return caller(guarded)


def as_key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def every_route(service: Service) -> Iterator[tuple[str, str]]:
    """Method and path of all that is registered, with ids filled in."""
    for route in create_app(service).routes:
        assert isinstance(route, Route)  # APIRoute is one; there are no mounts
        if route.include_in_schema or route.path == "/openapi.json":
            path = route.path.replace("{user_id:path}", "u").replace("{item_id:path}", "item1")
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, path


def test_every_registered_route_asks_for_a_key_but_those_that_are_public(
    guarded: Service, call: Callable[..., httpx.Response]
) -> None:
    tried = set()
    for method, path in every_route(guarded):
        tried.add((method, path))
        response = call(method, path, json=BODIES.get(path))
        if path in PUBLIC_PATHS:
            assert response.status_code == 200, path
            continue
        body = problem(response, 401)
        assert "has no API key" in body["detail"], (method, path)
        assert response.headers["www-authenticate"] == "Bearer"
        wrong = call(method, path, json=BODIES.get(path), headers=as_key("wrong"))
        assert "not known" in problem(wrong, 401)["detail"]
    described = call("GET", "/openapi.json").json()["paths"]
    assert len(tried) == 1 + sum(len(methods) for methods in described.values())


def test_every_route_that_names_a_tenant_refuses_anothers(
    guarded: Service, call: Callable[..., httpx.Response]
) -> None:
    tried = 0
    for method, path in every_route(guarded):
        if path in PUBLIC_PATHS:
            continue
        body = BODIES.get(path)
        in_body = body is not None and path in {
            "/v1/events",
            "/v1/recommend",
            "/v1/rank",
            "/v1/predict",
            "/v1/session/recommend",
            "/v1/items:batch",
        }
        for tenant in ("other", "does not exist"):
            if in_body:
                response = call(
                    method, path, json={**body, "tenant": tenant}, headers=as_key("mine")
                )
            else:
                response = call(
                    method, path, json=body, params={"tenant": tenant}, headers=as_key("mine")
                )
            assert "does not open the tenant" in problem(response, 403)["detail"], (method, path)
            tried += 1
    assert tried == 2 * 20


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/recommend", {"reader", "both", "all"}),
        ("POST", "/v1/events", {"writer", "both", "all"}),
        ("PUT", "/v1/users/u", {"writer", "both", "all"}),
        ("PUT", "/v1/items/item1", {"writer", "both", "all"}),
        ("GET", "/v1/users/u/state", {"reader", "both", "all"}),
        ("GET", "/v1/users/u/export", {"admin", "all"}),
        ("GET", "/v1/export/events", {"admin", "all"}),
        ("DELETE", "/v1/users/u", {"admin", "all"}),
    ],
)
def test_scopes(
    call: Callable[..., httpx.Response], method: str, path: str, allowed: set[str]
) -> None:
    call("POST", "/v1/events", json=BODIES["/v1/events"], headers=as_key("all"))
    for name in ("reader", "writer", "both", "admin", "all"):
        response = call(method, path, json=BODIES.get(path), headers=as_key(name))
        if name in allowed:
            assert response.status_code == 200, (name, response.text)
        else:
            assert f"The key {name!r} has not the scope" in problem(response, 403)["detail"]


@pytest.mark.parametrize("extra", [{"events": [purchase("item1")]}, {"exploration": 1.0}])
def test_a_recommendation_that_writes_takes_a_key_that_may_write(
    call: Callable[..., httpx.Response], extra: dict[str, Any]
) -> None:
    body = {"user_id": "u", **extra}
    problem(call("POST", "/v1/recommend", json=body, headers=as_key("reader")), 403)
    assert call("POST", "/v1/recommend", json=body, headers=as_key("both")).status_code == 200


def test_a_key_in_its_own_header(call: Callable[..., httpx.Response]) -> None:
    body = BODIES["/v1/recommend"]
    response = call("POST", "/v1/recommend", json=body, headers={"X-API-Key": "reader"})
    assert response.status_code == 200


def test_a_key_is_never_logged_nor_told(
    call: Callable[..., httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "a-secret-that-nobody-may-see"
    with caplog.at_level(logging.DEBUG):
        response = call(
            "POST", "/v1/recommend", json=BODIES["/v1/recommend"], headers=as_key(secret)
        )
    assert secret not in response.text
    assert secret not in caplog.text


def test_without_keys_everybody_may(call: Callable[..., httpx.Response]) -> None:
    assert Keys().caller(None) is ANYBODY
    assert not Keys()


def test_a_keys_file(tmp_path: Path) -> None:
    secret, sha256 = new_key()
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"keys:\n  - {{name: web, sha256: {sha256}, scopes: [read], tenants: [default]}}\n"
    )
    found = Keys.read(file).caller(secret)
    assert (found.name, found.scopes, found.tenants) == ("web", {Scope.READ}, {"default"})
    assert secret not in file.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: []", "at least 1 item"),
        ("keys: [{name: a, sha256: abc, scopes: [read]}]", "pattern"),
        (f"keys: [{{name: a, sha256: {'a' * 64}, scopes: [root]}}]", "'read', 'write' or 'admin'"),
        (f"keys: [{{name: a, sha256: {'a' * 64}}}]", "'keys.0.scopes' is missing"),
        (
            "keys:\n"
            f"  - {{name: a, sha256: {'a' * 64}, scopes: [read]}}\n"
            f"  - {{name: b, sha256: {'a' * 64}, scopes: [write]}}\n",
            "twice",
        ),
    ],
)
def test_a_wrong_keys_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Keys.read(file)
    assert message in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_this_machines_own_addresses_need_no_key(host: str) -> None:
    assert is_loopback(host)
    require_keys_on(host, has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "shop.example", ""])
def test_an_address_that_others_reach_needs_keys(host: str) -> None:
    require_keys_on(host, has_keys=True)
    with pytest.raises(ConfigError, match="without API keys"):
        require_keys_on(host, has_keys=False)
