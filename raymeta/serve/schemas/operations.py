"""The service's own state, and errors."""

from typing import Any, Literal

from raymeta.serve.schemas.base import Message


class Health(Message):
    """The server's own state."""

    status: Literal["ok", "ready"]
    """`ok`: the process answers. `ready`: models are loaded and the store answers."""


class ReadyResponse(Health):
    """The server can answer requests."""

    models: dict[str, dict[str, str]]
    """Tenant -> variant -> model version."""


class ModelFacts(Message):
    """One artifact that answers."""

    model_version: str
    """The first 16 hex digits of its manifest's sha256."""

    is_default: bool
    """Whether it answers requests that name no variant."""

    event_types: list[str]
    """What it may be told of."""

    n_items: int
    """Items that it can recommend, those added since training included."""

    max_events: int
    """How many of a user's last events it adapts to."""

    scenarios: list[str]
    """What it was trained for."""

    metrics: dict[str, Any]
    """What training measured."""


class ModelsResponse(Message):
    """The artifacts that answer for a tenant."""

    tenant: str
    """The shop."""

    catalogue_version: int
    """The shop's changes to items that they know of."""

    variants: dict[str, ModelFacts]
    """By variant."""


class FieldProblem(Message):
    """One value of a request that cannot be used."""

    field: str
    """Path of the value, e.g. `events.0.item_id`."""

    message: str
    """What is wrong with it."""


class Problem(Message):
    """An error, as RFC 9457 has it (`application/problem+json`)."""

    type: str = "about:blank"
    """Always `about:blank`: the status says the kind."""

    title: str
    """The status in words."""

    status: int
    """The HTTP status."""

    detail: str
    """What happened, the value, and what to do."""

    request_id: str
    """Of this request, as in the `X-Request-ID` header and in the server's log."""

    errors: list[FieldProblem] | None = None
    """Each value that cannot be used."""
