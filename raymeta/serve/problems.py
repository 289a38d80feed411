"""Errors as HTTP has them: the one table from errors to statuses, each `application/problem+json`
(RFC 9457)."""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from raymeta.errors import (
    AdaptationError,
    ArtifactError,
    ConfigError,
    ConflictError,
    DataError,
    ForbiddenError,
    NotServedError,
    RateLimitError,
    RaymetaError,
    RequestError,
    ResourceError,
    StoreError,
    UnauthenticatedError,
    UnknownItemError,
    UnknownUserError,
)
from raymeta.observability import logs, metrics
from raymeta.observability.metrics import Meter
from raymeta.serve.schemas.operations import FieldProblem, Problem

logger = logging.getLogger(__name__)

ERROR_STATUS: tuple[tuple[type[RaymetaError], int], ...] = (
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (UnknownUserError, 404),
    (UnknownItemError, 404),
    (ConflictError, 409),
    (RateLimitError, 429),
    (NotServedError, 422),
    (RequestError, 400),
    (ArtifactError, 503),
    (StoreError, 503),
    (ResourceError, 503),
    (DataError, 422),
    (ConfigError, 422),
    (AdaptationError, 500),
    (RaymetaError, 500),
)
"""The first row that fits gives the status; nothing else maps errors to HTTP."""

RETRY_AFTER_S = 1
_MAX_FIELD_PROBLEMS = 20


Handler = Callable[[Request, Exception], Awaitable[Response]]


def add_handlers(app: FastAPI, meter: Meter) -> None:
    """Has every error of an application answered as a problem, and counted."""
    app.add_exception_handler(RaymetaError, _counted(_on_raymeta_error, meter))
    app.add_exception_handler(RequestValidationError, _counted(_on_validation_error, meter))
    app.add_exception_handler(HTTPException, _counted(_on_http_exception, meter))


def _counted(handler: Handler, meter: Meter) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        response = await handler(request, error)
        meter.add(metrics.ERRORS, type(error).__name__, str(response.status_code))
        return response

    return handle


def problem(
    request_id: str,
    status: int,
    detail: str,
    *,
    fields: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that says what went wrong."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id,
        errors=fields,
    )
    extra = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    return Response(
        body.model_dump_json(exclude_none=True),
        status_code=status,
        headers={**extra, **(headers or {})},
        media_type="application/problem+json",
    )


async def _on_raymeta_error(request: Request, error: Exception) -> Response:
    status = next(status for kind, status in ERROR_STATUS if isinstance(error, kind))
    if status >= 500:
        facts = logs.facts(request_id=request.state.request_id, kind=type(error).__name__)
        logger.warning("%s", error, extra=facts)
    headers = {}
    if isinstance(error, RateLimitError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(request.state.request_id, status, str(error), headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    request_id = request.state.request_id
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        context = found[0].get("ctx", {})
        detail = f"The body is not JSON: {context.get('error', 'it cannot be parsed')}."
        position = found[0]["loc"][-1]
        return problem(request_id, 400, f"{detail} Look at character {position}.")
    content_type = request.headers.get("content-type", "")
    has_body = request.method in ("POST", "PUT", "PATCH")
    if has_body and not _is_json(content_type):
        named = repr(content_type) if content_type else "missing"
        return problem(request_id, 415, f"The Content-Type is {named}. Send application/json.")
    fields = [
        FieldProblem(field=_path(one["loc"]), message=_message(one))
        for one in found[:_MAX_FIELD_PROBLEMS]
    ]
    first = fields[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{first.field}: {first.message}.{more} Correct the request; nothing was kept of it."
    return problem(request_id, 422, detail, fields=fields)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}. See /openapi.json for the routes."
    elif error.status_code == 405:
        error = HTTPException(405, headers={"Allow": ", ".join(_methods_at(request))})
        detail = f"{request.method} is not what {request.url.path} takes. See /openapi.json."
    elif error.status_code == 400:
        # FastAPI's answer to a body that is no text or nested too deep says no more
        detail = "The body cannot be read as JSON in UTF-8."
    return problem(request.state.request_id, error.status_code, detail, headers=error.headers)


def _methods_at(request: Request) -> list[str]:
    """What the path takes by any of its routes; the router itself tells of the first alone."""
    described = [route for route in request.app.routes if route.include_in_schema]
    fitting = [r for r in described if r.matches(request.scope)[0] is not Match.NONE]
    # "/users/ID/state" fits "/users/ID" too, which stands after it
    return sorted({m for r in fitting if r.path == fitting[0].path for m in r.methods})


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _path(location: tuple[int | str, ...]) -> str:
    """`events.0.item_id`: where in the body (or which parameter), as the caller wrote it."""
    first = location[:1]
    inner = location[1:] if first in (("body",), ("query",), ("path",), ("header",)) else location
    return ".".join(map(str, inner)) or "body"


def _message(found: dict[str, Any]) -> str:
    given = repr(found.get("input"))
    if found["type"] == "missing":
        return "is missing"
    if found["type"] == "extra_forbidden":
        return "is not a key that this request has"
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"{message} (given: {given if len(given) <= 80 else given[:77] + '...'})"
