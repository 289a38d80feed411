"""The other products' routes are there only where they are named, and ask for keys like all."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from raymeta.config.serving import CompatConfig, ServingConfig
from raymeta.errors import ConfigError
from raymeta.serve.access import KeyConfig, Keys, Scope
from raymeta.serve.compat.products import PUBLIC_PATHS, ROUTES_OF
from raymeta.serve.ingress import create_app
from raymeta.serve.service import Service
from tests.unit.serve.compat import test_gorse, test_metarank, test_personalize
from tests.unit.serve.compat.conftest import ALL, Call, asking
from tests.unit.serve.test_access import as_key, hashed
from tests.unit.serve.test_ingress import problem

BODIES: dict[str, Any] = {
    "/api/feedback": json.loads(test_gorse.FEEDBACK),
    "/api/session/recommend": json.loads(test_gorse.FEEDBACK),
    "/api/session/recommend/x": json.loads(test_gorse.FEEDBACK),
    "/api/user": json.loads(test_gorse.USER),
    "/api/users": [json.loads(test_gorse.USER)],
    "/api/user/x": {},
    "/api/item": json.loads(test_gorse.ITEM),
    "/api/items": [json.loads(test_gorse.ITEM)],
    "/api/item/x": {},
    "/feedback": json.loads(test_metarank.INTERACTION),
    "/rank/x": json.loads(test_metarank.RANK),
    "/recommend/x": json.loads(test_metarank.SIMILAR),
    "/events": json.loads(test_personalize.EVENTS),
    "/recommendations": json.loads(test_personalize.RECOMMENDATIONS),
    "/personalize-ranking": json.loads(test_personalize.RANKING),
    "/users": {"users": [{"userId": "u"}]},
    "/items": {"items": [{"itemId": "i1"}]},
}
KEYS = Keys(
    [
        KeyConfig(name="reader", sha256=hashed("reader"), scopes=(Scope.READ,)),
        KeyConfig(name="mine", sha256=hashed("mine"), scopes=tuple(Scope), tenants=("default",)),
        KeyConfig(name="others", sha256=hashed("others"), scopes=tuple(Scope), tenants=("other",)),
    ]
)


@pytest.fixture
def guarded(named: Callable[..., Service]) -> Service:
    return named(keys=KEYS)


@pytest.fixture
def call(guarded: Service) -> Call:
    return asking(guarded)


def routes(service: Service) -> Iterator[tuple[str, str]]:
    """Method and path of what the products add, with every parameter `x`."""
    own = {(route.path, *sorted(route.methods)) for route in create_app(service).routes}
    for route in create_app(service, compat=ALL).routes:
        assert isinstance(route, Route)
        if (route.path, *sorted(route.methods or ())) not in own:
            path = "/".join("x" if p.startswith("{") else p for p in route.path.split("/"))
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, path


def test_no_product_is_understood_unless_it_is_named(guarded: Service) -> None:
    assert CompatConfig().products == ()
    assert set(ROUTES_OF) == set(ALL.products)
    native = asking(guarded, CompatConfig())
    for method, path in routes(guarded):
        body = BODIES.get(path) if method in ("POST", "PUT", "PATCH") else None
        problem(native(method, path, json=body, headers=as_key("mine")), 404)
    with pytest.raises(ConfigError, match=r"'compat\.products\.0' is 'recombee'"):
        ServingConfig.parse({"compat": {"products": ["recombee"]}}, source="serving.yaml")


def test_every_route_asks_for_a_key_and_refuses_anothers_tenant(
    guarded: Service, call: Call
) -> None:
    tried = set()
    for method, path in routes(guarded):
        body = BODIES.get(path) if method in ("POST", "PUT", "PATCH") else None
        if path in PUBLIC_PATHS:
            assert call(method, path).status_code == 200
            continue
        tried.add((method, path))
        assert "has no API key" in problem(call(method, path, json=body), 401)["detail"]
        theirs = call(method, path, json=body, params={"tenant": "other"}, headers=as_key("mine"))
        assert "does not open the tenant 'other'" in problem(theirs, 403)["detail"], (method, path)
    assert len(tried) == 23 + 3 + 5


def test_what_writes_takes_a_key_that_may_write(guarded: Service, call: Call) -> None:
    reads = {
        *("/api/recommend/x", "/api/recommend/x/x", "/api/session/recommend"),
        *("/api/session/recommend/x", "/api/collaborative-filtering/x"),
        *("/api/non-personalized/x", "/api/item-to-item/x/x", "/rank/x", "/recommend/x"),
        *("/recommendations", "/personalize-ranking"),
    }
    for method, path in routes(guarded):
        body = BODIES.get(path) if method in ("POST", "PUT", "PATCH") else None
        response = call(method, path, json=body, headers=as_key("reader"))
        is_read = path in reads or (method == "GET" and path in ("/api/user/x", "/api/item/x"))
        if is_read or path in PUBLIC_PATHS:
            assert response.status_code != 403, (method, path)
        else:
            assert "has not the scope" in problem(response, 403)["detail"], (method, path)
    back = call("GET", "/api/recommend/x?write-back-type=view", headers=as_key("reader"))
    assert "the scope 'write'" in problem(back, 403)["detail"]


@pytest.mark.parametrize("path", ["/feedback", "/events", "/api/feedback"])
def test_a_key_of_one_tenant_means_that_tenant(call: Call, path: str) -> None:
    """Callers of these products have no way to name one."""
    sent = call("POST", path, json=BODIES[path], headers=as_key("others"))
    assert sent.status_code == 200, sent.text
    user = {"/feedback": "user1", "/events": "u1", "/api/feedback": "bob"}[path]
    found = {
        tenant: call(
            "GET", f"/v1/users/{user}", params={"tenant": tenant}, headers=as_key(key)
        ).status_code
        for tenant, key in (("other", "others"), ("default", "mine"))
    }
    assert found == {"other": 200, "default": 404}


def test_metaranks_own_tenant(call: Call) -> None:
    sent = BODIES["/feedback"] | {"tenant": "other"}
    assert call("POST", "/feedback", json=sent, headers=as_key("others")).status_code == 200
    problem(call("POST", "/feedback", json=sent, headers=as_key("mine")), 403)
    ranked = BODIES["/rank/x"] | {"tenant": "other"}
    problem(call("POST", "/rank/xgboost", json=ranked, headers=as_key("mine")), 403)


def test_a_signature_is_not_taken_for_a_key(call: Call) -> None:
    """What Personalize's SDKs sign with stands beside the key, which is asked for."""
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/b, Signature=c"}
    body = BODIES["/recommendations"]
    problem(call("POST", "/recommendations", json=body, headers=signed), 401)
    with_key: httpx.Response = call(
        "POST", "/recommendations", json=body, headers=signed | {"X-API-Key": "reader"}
    )
    assert with_key.status_code == 200


def test_limits_hold(named: Callable[..., Service]) -> None:
    call = asking(named(requests_per_s_per_key=0.001, burst_s=1000.0))
    assert call("POST", "/events", json=BODIES["/events"]).status_code == 200
    late = call("POST", "/events", json=BODIES["/events"])
    problem(late, 429)
    assert int(late.headers["retry-after"]) > 1
    long = asking(named())("POST", "/feedback", content=b" " * (1 << 21))
    problem(long, 413)


@pytest.mark.parametrize("path", ["/feedback", "/api/feedback", "/api/users", "/api/items"])
def test_a_request_has_so_many_parts_at_most(named: Callable[..., Service], path: str) -> None:
    body = BODIES[path] if isinstance(BODIES[path], list) else [BODIES[path]]
    refused = asking(named(max_events=2, max_items=2))("POST", path, json=body * 3)
    assert "is 3; at most 2 are taken" in problem(refused, 422)["detail"]
