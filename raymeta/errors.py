"""The exception tree: every error a person can cause, each with what to do about it.

    RaymetaError
      ConfigError (ValueError)     an unknown key, a bad value, settings that contradict
      DataError
        SchemaError                a column is missing or has another type
        LeakageError               a split sees events of another split
      AdaptationError              non-finite loss or parameters while adapting
      ArtifactError                a file is missing or altered, or a version is not understood
      ResourceError                the cluster cannot give what was asked for
      JobError                     a submitted job could not be reached or failed
      StoreError                   the event store is unreachable or of another version
      ServiceError                 a service could not be reached, or failed
      RequestError                 a request to a service that it does not carry out
        InvalidRequestError        a value of it cannot be used
        UnknownUserError           a user that the store has never seen
        UnknownItemError           an item that the service does not know
        ConflictError              an id was used before with another content
        UnauthenticatedError       no key, or one that is not known
        ForbiddenError             the key does not open this
        RateLimitError             too many requests
        NotServedError             the artifact cannot do what was asked

Command-line exit codes and HTTP statuses are derived from this tree, in `raymeta.cli.main` and
`raymeta.serve.ingress`; nothing else maps errors.
"""

from typing import ClassVar


class RaymetaError(Exception):
    """What happened, the value that caused it, and what to do.

    Args:
        message: what happened, with the offending value quoted.
        remedy: one sentence on what to do next.

    Instances survive pickling, so they cross Ray process boundaries unchanged.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(kind: type[RaymetaError], message: str, remedy: str) -> RaymetaError:
    return kind(message, remedy=remedy)


class ConfigError(RaymetaError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""

    exit_code = 2


class DataError(RaymetaError):
    """Input data cannot be used as given."""

    exit_code = 2


class SchemaError(DataError):
    """A column is missing, has another type, or is not declared."""


class LeakageError(DataError):
    """A split would let one side see the other's events."""


class AdaptationError(RaymetaError):
    """Adapting produced a loss or parameters that are not finite."""


class ArtifactError(RaymetaError):
    """An artifact is missing a file, was altered, or has a schema that is not understood."""

    exit_code = 2


class ResourceError(RaymetaError):
    """The cluster does not have the workers, CPUs, GPUs or port that were asked for."""

    exit_code = 2


class JobError(RaymetaError):
    """The job server could not be reached, or refused the request."""


class StoreError(RaymetaError):
    """The event store cannot be reached, or holds a schema of another version."""


class ServiceError(RaymetaError):
    """A service could not be reached, failed, or answered with something else than expected."""


class RequestError(RaymetaError):
    """A service was asked for what it does not do for this caller, or not now."""


class InvalidRequestError(RequestError):
    """A request names a value, or a way to ask, that the service cannot use."""

    exit_code = 2


class UnknownUserError(RequestError):
    """The store holds nothing of this user."""


class UnknownItemError(RequestError):
    """Neither the artifact nor the catalogue's changes hold this item."""


class ConflictError(RequestError):
    """An id or key was used before with another content."""


class UnauthenticatedError(RequestError):
    """The request has no API key, or one that is not known."""


class ForbiddenError(RequestError):
    """The API key does not open this route or tenant."""


class RateLimitError(RequestError):
    """The caller sends more than it may.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_rate_limit, (self.message, self.remedy, self.retry_after_s))


def _rebuild_rate_limit(message: str, remedy: str, retry_after_s: float) -> RateLimitError:
    return RateLimitError(message, remedy=remedy, retry_after_s=retry_after_s)


class NotServedError(RequestError):
    """The artifact that would answer was not trained for what was asked."""
