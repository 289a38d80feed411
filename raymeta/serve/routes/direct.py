"""A route that is asked all day: a plain request is read here, at half of what FastAPI takes.

FastAPI describes the route, and answers every request that is not plain or that is refused: what a
caller is told of an error is its doing alone. Plain is a JSON body that fits the message, without
an `Idempotency-Key`.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message, Receive, Scope, Send

from raymeta.serve.access import Caller

Endpoint = Callable[..., Awaitable[Response]]
CallerOf = Callable[[Request], Awaitable[Caller]]


def post(
    app: FastAPI, path: str, message: type[BaseModel], caller_of: CallerOf, **described: Any
) -> Callable[[Endpoint], Endpoint]:
    """Adds an endpoint `(request: message, caller, ...) -> Response`; further parameters must have
    defaults, which a plain request leaves as they are.

    Args:
        app: gets the route.
        path: where.
        message: what a body must be.
        caller_of: who sent it; raises where it may not.
        described: for FastAPI's `post`.
    """

    def add(endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response | None:
            given = _read(request, await request.body(), message)
            return None if given is None else await endpoint(given, await caller_of(request))

        app.router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            route_class_override=_route_class(answer),
            **described,
        )
        return endpoint

    return add


def _route_class(answer: Callable[[Request], Awaitable[Response | None]]) -> type[APIRoute]:
    class DirectRoute(APIRoute):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] != "POST":
                await super().handle(scope, receive, send)
                return
            request = Request(scope, receive)
            response = await answer(request)
            if response is None:
                await super().handle(scope, _again(await request.body(), receive), send)
            else:
                await response(scope, receive, send)

    return DirectRoute


def _read(request: Request, body: bytes, message: type[BaseModel]) -> BaseModel | None:
    headers = request.headers
    if headers.get("content-type") != "application/json" or "idempotency-key" in headers:
        return None
    try:
        # as FastAPI does: a strict message takes other things from JSON itself
        return message.model_validate(json.loads(body))
    except (ValueError, RecursionError, ValidationError):
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read once more."""
    is_read = False

    async def receive_again() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
