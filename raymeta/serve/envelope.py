"""Around every request: its id, body limit, deadline, time, log line; a last catch of errors."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raymeta.observability import logs, metrics, tracing
from raymeta.observability.metrics import Meter
from raymeta.serve.problems import problem

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class _BodyTooLarge(HTTPException):
    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The body has more than {limit} bytes. Split the request.")


class Envelope:
    """An ASGI middleware.

    Args:
        app: what answers.
        max_body_bytes: a longer request body is refused with 413, read or not.
        deadline_s: a request that takes longer is answered with 408.
        request_id_header: whether answers get an `X-Request-ID`.
        meter: gets the time of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        deadline_s: float,
        request_id_header: bool,
        meter: Meter,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._deadline_s = deadline_s
        self._request_id_header = request_id_header
        self._meter = meter
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        self._in_progress += 1
        status = 0  # of one whose caller went away
        try:
            with tracing.request_span(
                f"{scope['method']} request", scope["headers"], request_id=request_id
            ) as span:
                status = await self._answer(scope, receive, send, headers, request_id)
                if span is not None:
                    span.update_name(f"{scope['method']} {_route_of(scope)}")
                    span.set_attribute("http.response.status_code", status)
        finally:
            self._in_progress -= 1
            self._note(scope, request_id, status, time.perf_counter() - started)

    def _note(self, scope: Scope, request_id: str, status: int, took_s: float) -> None:
        """Neither a path's ids nor a body is in a log: they are of users."""
        route = _route_of(scope)
        self._meter.observe(metrics.REQUEST_SECONDS, took_s, route, str(status))
        # the others that one leaves behind: at a beginning it would stay at 1 when all is over
        self._meter.set(metrics.REQUESTS_IN_PROGRESS, value=self._in_progress)
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "request",
                extra=logs.facts(
                    request_id=request_id,
                    method=scope["method"],
                    route=route,
                    status=status,
                    took_ms=round(took_s * 1000.0, 3),
                    caller=scope["state"].get("caller"),
                ),
            )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, request_id: str
    ) -> int:
        """Has the application answer, or answers for it; gives the status."""
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                if self._request_id_header:
                    out["X-Request-ID"] = request_id
                # an answer is one user's: no cache may give it to another
                out["Cache-Control"] = "no-store"
            await send(message)

        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self._max_body_bytes:
                raise _BodyTooLarge(self._max_body_bytes)
            async with asyncio.timeout(self._deadline_s):
                await self._app(scope, self._limited(receive), send_with_headers)
        except _BodyTooLarge as error:
            response = problem(request_id, 413, error.detail)
            self._meter.add(metrics.ERRORS, "body_too_large", "413")
        except Exception as error:
            if status:
                raise
            if isinstance(error, TimeoutError):
                response = problem(request_id, 408, self._late())
                self._meter.add(metrics.ERRORS, "deadline", "408")
            else:
                logger.exception("request failed", extra=logs.facts(request_id=request_id))
                detail = "The server failed. Its log has the cause by this request id."
                response = problem(request_id, 500, detail)
                self._meter.add(metrics.ERRORS, type(error).__name__, "500")
        else:
            return status
        await response(scope, receive, send_with_headers)
        return status

    def _limited(self, receive: Receive) -> Receive:
        num_bytes = 0

        async def receive_limited() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise _BodyTooLarge(self._max_body_bytes)
            return message

        return receive_limited

    def _late(self) -> str:
        return (
            f"The request took longer than {self._deadline_s:g} s. Events may have been kept or "
            "not: send them again with the same event_id, which counts them once."
        )


def _route_of(scope: Scope) -> str:
    """The route's pattern, such as `/v1/users/{user_id}`; a path itself would name users."""
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
