"""What both clients share: the request of a call, and what makes a method of a function."""

import inspect
import uuid
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_args
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from raymeta.client.calls import Call
from raymeta.client.retries import Retries
from raymeta.config.serving import DEFAULT
from raymeta.errors import ConfigError, InvalidRequestError
from raymeta.serve.schemas.base import Message

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")


class Connection:
    """Where requests go and what every one carries."""

    def __init__(
        self, base_url: str, *, key: str | None, tenant: str, retries: Retries | None
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"The service's URL is {base_url!r}.",
                remedy="Write it with its scheme, e.g. http://127.0.0.1:8000.",
            )
        self.base_url = base_url.rstrip("/")
        self.retries = retries or Retries()
        self._tenant = tenant
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def request(self, call: Call[Any]) -> httpx.Request:
        """The request of a call; the same object is sent again, with the same key in it."""
        headers, params, content = dict(self._headers), dict(call.params), None
        body = call.body
        if isinstance(body, Message) and "tenant" in type(body).model_fields:
            body = body.model_copy(update={"tenant": self._tenant})
        elif self._tenant != DEFAULT and not call.names_tenant:
            params["tenant"] = self._tenant
        if isinstance(body, Message):
            content = body.model_dump_json(exclude_defaults=True).encode()
        if call.user_id is not None:
            headers["X-Session-Id"] = quote(call.user_id, safe="")
        if call.writes_events:
            headers["Idempotency-Key"] = call.idempotency_key or uuid.uuid4().hex
        return httpx.Request(
            call.method,
            self.base_url + call.path,
            params=params or None,
            headers=headers,
            content=content,
            json=None if body is None or isinstance(body, Message) else body,
        )


def built(build: Callable[P, Call[AnswerT]], /, *args: P.args, **kwargs: P.kwargs) -> Call[AnswerT]:
    """The call that `build` makes of these arguments.

    Raises:
        InvalidRequestError: a value that the service would refuse.
    """
    try:
        return build(*args, **kwargs)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(
            f"{place}: {message} (given: {first['input']!r}).", remedy="Nothing was sent."
        ) from None


def of_a_method(build: Callable[..., Call[Any]]) -> inspect.Signature:
    """`build`'s signature as a method has it: help and editors show the arguments."""
    signature = inspect.signature(build)
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    (answer,) = get_args(signature.return_annotation)
    return signature.replace(
        parameters=[me, *signature.parameters.values()], return_annotation=answer
    )
