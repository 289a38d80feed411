"""What an attempt came to: the answer, or one of `raymeta.errors`."""

from typing import TypeVar

import httpx
from pydantic import ValidationError

from raymeta.client.calls import Call
from raymeta.client.retries import retry_after_s
from raymeta.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    RateLimitError,
    RaymetaError,
    RequestError,
    ServiceError,
    UnauthenticatedError,
    UnknownItemError,
    UnknownUserError,
)
from raymeta.serve.schemas.operations import Problem

AnswerT = TypeVar("AnswerT")

KIND_OF_STATUS: dict[int, type[RequestError]] = {
    400: InvalidRequestError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    405: InvalidRequestError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitError,
}
"""What a refusal is raised as; any other status from 500 on, and 408, as `ServiceError`."""


def answer_of(call: Call[AnswerT], outcome: httpx.Response | httpx.TransportError) -> AnswerT:
    """The answer to a call.

    Raises:
        RequestError: one of its kinds, by `KIND_OF_STATUS`: the service refused the request.
        ServiceError: it could not be reached, failed, or is not a raymeta service.
    """
    if isinstance(outcome, httpx.TransportError):
        raise _unreachable(outcome) from outcome
    if not outcome.is_success:
        raise error_of(outcome)
    try:
        return call.parse(outcome)
    except ValueError as error:  # a ValidationError is one, and so is what is not JSON
        raise ServiceError(
            f"{call.method} {outcome.url} was answered with something else: {_first_line(error)}",
            remedy="Check the URL, and that client and service are of one version.",
        ) from error


def error_of(response: httpx.Response) -> RaymetaError:
    """The error that an answer with another status than success means; a note has the request's
    id, which the service's log has as well."""
    try:
        problem = Problem.model_validate_json(response.content, extra="ignore")
        detail, request_id = problem.detail, problem.request_id
    except ValidationError:  # from a proxy in front of the service
        said = " ".join(response.text.split())[:200]
        detail = f"{response.url} answered {response.status_code}: {said or 'nothing more'}"
        request_id = response.headers.get("x-request-id", "")
    error = _kind(response, detail)
    if request_id:
        error.add_note(f"request id {request_id}")
    return error


def _kind(response: httpx.Response, detail: str) -> RaymetaError:
    status, path = response.status_code, response.url.path
    if status == 429:
        return RateLimitError(detail, retry_after_s=retry_after_s(response) or 1.0)
    if status == 404:
        if path.startswith("/v1/users/"):
            return UnknownUserError(detail)
        return UnknownItemError(detail) if path.startswith("/v1/items/") else RequestError(detail)
    return KIND_OF_STATUS[status](detail) if status in KIND_OF_STATUS else ServiceError(detail)


def _unreachable(error: httpx.TransportError) -> ServiceError:
    said = str(error) or type(error).__name__
    return ServiceError(
        f"No service answers at {error.request.url.copy_with(path='/', query=None)}: {said}",
        remedy="Check the URL, and that `raymeta serve` runs there.",
    )


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"
    return str(error).partition("\n")[0]
