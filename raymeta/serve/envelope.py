"""Around every request: its id, body limit, deadline, no caching, and a last catch of errors."""

import asyncio
import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, deadline_s: float, request_id_header: bool
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._deadline_s = deadline_s
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

        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self._max_body_bytes:
                raise _BodyTooLarge(self._max_body_bytes)
            async with asyncio.timeout(self._deadline_s):
                await self._app(scope, self._limited(receive), send_with_headers)
        except _BodyTooLarge as error:
            response = problem(request_id, 413, error.detail)
        except Exception as error:
            if answered:
                raise
            if isinstance(error, TimeoutError):
                response = problem(request_id, 408, self._late())
            else:
                logger.exception("request %s failed", request_id)
                detail = "The server failed. Its log has the cause by this request id."
                response = problem(request_id, 500, detail)
        else:
            return
        await response(scope, receive, send_with_headers)

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
