"""The HTTP face of a service: routes, the one table from errors to statuses, body limits.

Every error is `application/problem+json` (RFC 9457). Leaves what a route does to `service`.
"""

import logging
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raymeta.config.serving import DEFAULT
from raymeta.errors import (
    AdaptationError,
    ArtifactError,
    ConfigError,
    DataError,
    RaymetaError,
    ResourceError,
    StoreError,
    UnknownUserError,
)
from raymeta.serve.schemas import (
    EventsRequest,
    EventsResponse,
    FieldProblem,
    Health,
    Problem,
    ReadyResponse,
    RecommendRequest,
    RecommendResponse,
    UserStateResponse,
)
from raymeta.serve.service import Service

logger = logging.getLogger(__name__)

ERROR_STATUS: tuple[tuple[type[RaymetaError], int], ...] = (
    (UnknownUserError, 404),
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
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_app(service: Service, *, max_body_bytes: int, request_id_header: bool = True) -> FastAPI:
    """The ASGI application around a service; needs no Ray.

    Args:
        service: what the routes call.
        max_body_bytes: a longer request body is refused with 413, read or not.
        request_id_header: whether answers get an `X-Request-ID`; Ray Serve adds its own.
    """
    app = FastAPI(
        title="raymeta",
        description="Events in, recommendations adapted to them out.",
        version="1",
        # their pages load scripts from another host
        docs_url=None,
        redoc_url=None,
    )
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": HTTPStatus(status).phrase}
        for status in (400, 413, 415, 422, 503)
    }

    @app.post("/v1/events", responses=problems)
    async def add_events(request: EventsRequest) -> EventsResponse:
        """Keeps events of one user, all or none. Answers once they are durable."""
        return await service.add_events(request)

    @app.post("/v1/recommend", responses=problems)
    async def recommend(request: RecommendRequest) -> RecommendResponse:
        """Items for a user, adapted to every event answered for, and to those sent along."""
        return await service.recommend(request)

    # a user's id may have slashes in it
    @app.get("/v1/users/{user_id:path}/state", responses=problems | {404: {"model": Problem}})
    async def user_state(
        user_id: str, tenant: str = DEFAULT, variant: str | None = None
    ) -> UserStateResponse:
        """What the service knows of a user."""
        return await service.user_state(user_id, tenant=tenant, variant=variant)

    @app.get("/healthz")
    async def healthz() -> Health:
        """The process answers."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Problem}})
    async def readyz() -> ReadyResponse:
        """Models are loaded and the store answers."""
        return await service.ready()

    app.add_exception_handler(RaymetaError, _on_raymeta_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(
        _Envelope, max_body_bytes=max_body_bytes, request_id_header=request_id_header
    )
    return app


class _BodyTooLarge(HTTPException):
    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The body has more than {limit} bytes. Split the request.")


class _Envelope:
    """Around every request: its id, the body limit, no caching, and a last catch of errors."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, request_id_header: bool) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._request_id_header = request_id_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                out = MutableHeaders(scope=message)
                if self._request_id_header:
                    out["X-Request-ID"] = request_id
                # an answer is one user's: no cache may give it to another
                out["Cache-Control"] = "no-store"
            await send(message)

        num_bytes = 0

        async def receive_limited() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise _BodyTooLarge(self._max_body_bytes)
            return message

        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self._max_body_bytes:
                raise _BodyTooLarge(self._max_body_bytes)
            await self._app(scope, receive_limited, send_with_headers)
        except _BodyTooLarge as error:
            response = _problem(request_id, 413, error.detail)
            await response(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s failed", request_id)
            if answered:
                raise
            response = _problem(
                request_id, 500, "The server failed. Its log has the cause by this request id."
            )
            await response(scope, receive, send_with_headers)


async def _on_raymeta_error(request: Request, error: Exception) -> Response:
    status = next(status for kind, status in ERROR_STATUS if isinstance(error, kind))
    if status >= 500:
        logger.warning("request %s: %s", request.state.request_id, error)
    return _problem(request.state.request_id, status, str(error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    request_id = request.state.request_id
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        context = found[0].get("ctx", {})
        detail = f"The body is not JSON: {context.get('error', 'it cannot be parsed')}."
        position = found[0]["loc"][-1]
        return _problem(request_id, 400, f"{detail} Look at character {position}.")
    content_type = request.headers.get("content-type", "")
    if request.method == "POST" and not _is_json(content_type):
        named = repr(content_type) if content_type else "missing"
        detail = f"The Content-Type is {named}. Send application/json."
        return _problem(request_id, 415, detail)
    fields = [
        FieldProblem(field=_path(one["loc"]), message=_message(one))
        for one in found[:_MAX_FIELD_PROBLEMS]
    ]
    first = fields[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{first.field}: {first.message}.{more} Correct the request; nothing was kept of it."
    return _problem(request_id, 422, detail, fields=fields)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}. See /openapi.json for the routes."
    elif error.status_code == 405:
        detail = f"{request.method} is not what {request.url.path} takes. See /openapi.json."
    elif error.status_code == 400:
        # FastAPI's answer to a body that is no text or nested too deep says no more
        detail = "The body cannot be read as JSON in UTF-8."
    return _problem(request.state.request_id, error.status_code, detail, headers=error.headers)


def _problem(
    request_id: str,
    status: int,
    detail: str,
    *,
    fields: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id,
        errors=fields,
    )
    extra = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        headers={**(headers or {}), **extra},
        media_type="application/problem+json",
    )


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _path(location: tuple[int | str, ...]) -> str:
    """`events.0.item_id`: where in the body (or which parameter), as the caller wrote it."""
    inner = location[1:] if location[:1] in (("body",), ("query",), ("path",)) else location
    return ".".join(map(str, inner)) or "body"


def _message(problem: dict[str, Any]) -> str:
    given = repr(problem.get("input"))
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return "is not a key that this request has"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{message} (given: {given if len(given) <= 80 else given[:77] + '...'})"
