"""What every route asks first: whose key a request carries, and whether it may do this."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import Request

from raymeta.serve.access import Caller, Scope
from raymeta.serve.schemas.operations import Problem
from raymeta.serve.service import Service

_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"api_key": []}]
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def needs(service: Service, scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that gives the caller, once it is known, allowed and within its rate."""

    async def caller(request: Request) -> Caller:
        found = service.keys.caller(_key(request))
        request.state.caller = found.name
        found.require(scope)
        service.key_rate.take(found.name)
        return found

    return caller


def described(tag: str, *statuses: int) -> dict[str, Any]:
    """What the API's own description says of a route: what it is about, that it takes a key, and
    its errors."""
    return {
        "tags": [tag],
        "responses": problems(*statuses),
        "openapi_extra": {"security": _SECURITY},
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route beside those that all have."""
    always = (400, 401, 403, 408, 422, 429, 503)
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}
                }
            },
        }
        for status in sorted({*always, *statuses})
    }


def _key(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    return request.headers.get("x-api-key")
