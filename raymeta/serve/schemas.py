"""What a request may say and what an answer says. Leaves limits that are settings to `service`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from raymeta.config.serving import DEFAULT

EARLIEST_MS = 0
LATEST_MS = 253_402_300_799_000  # the last second of the year 9999

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A user's, item's, event's, visit's or ranking's id: any text, compared as it is."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _to_ms(value: Any) -> Any:
    """Integer milliseconds, or ISO-8601 with its zone; what is neither is left to be refused."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(
            "write UTC milliseconds, or ISO-8601 such as 2026-03-01T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise ValueError("add the time zone, such as Z for UTC")
    return (moment - datetime.fromtimestamp(0, UTC)) // _MILLISECOND


_MILLISECOND = datetime.fromtimestamp(0.001, UTC) - datetime.fromtimestamp(0, UTC)

TimestampMs = Annotated[
    int,
    BeforeValidator(_to_ms, json_schema_input_type=int | str),
    Field(ge=EARLIEST_MS, le=LATEST_MS, strict=True),
]


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Event(_Message):
    """One thing that a user did."""

    event_id: Id | None = None
    """Yours, unique within the user: an event sent again with it counts once. Without one, an
    event that is sent again counts again."""

    item_id: Id
    """The item it was about; one that the model does not know is kept, and does not adapt."""

    event_type: Name
    """What was done, e.g. `purchase`."""

    timestamp: TimestampMs | None = None
    """When: UTC milliseconds, or ISO-8601 with a zone. The server's clock if not given."""

    value: float | None = None
    """Rating, quantity or price."""

    visit_id: Id | None = None
    """The basket, order or session."""

    query: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """What was searched for."""

    ranking_id: Id | None = None
    """The list it came from: the `recommendation_id` of an answer."""

    position: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """0-based place in that list."""

    propensity: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Probability with which the list showed the item there."""


class EventsRequest(_Message):
    """Events of one user, kept all or none."""

    user_id: Id
    """The user."""

    events: Annotated[list[Event], Field(min_length=1)]
    """What the user did, in any order."""

    tenant: Name = DEFAULT
    """The shop."""


class EventsResponse(_Message):
    """What became of the events; sent once they are durable."""

    accepted: int
    """Events that are kept now and were not before."""

    duplicates: int
    """Events whose `event_id` was taken already."""

    state_version: int
    """The user's version: an answer with this one or a higher one reflects these events."""

    durable: bool
    """Whether they outlive the server; false only with a store in memory."""


class RecommendRequest(_Message):
    """Asks for items for one user; may bring events, which are kept first."""

    user_id: Id
    """The user; one without events gets what the model gives anybody."""

    n: Annotated[int, Field(ge=1)] = 10
    """How many items."""

    events: list[Event] = Field(default_factory=list)
    """What the user did since; made durable before the answer, which reflects it."""

    exclude: list[Id] = Field(default_factory=list)
    """Items to leave out; unknown ones are ignored."""

    exclude_seen: bool = True
    """Leave out the items that the user has events on (impressions do not count)."""

    variant: Name | None = None
    """Which of the tenant's models; its default if not given."""

    tenant: Name = DEFAULT
    """The shop."""


class ScoredItem(_Message):
    """One recommendation."""

    id: str
    """The item."""

    score: float
    """The adapted model's score: for order, not a probability."""

    prior_score: float
    """Its score for a user of whom nothing is known."""


class AppendedEvents(_Message):
    """What became of the events that a recommendation request brought."""

    accepted: int
    """Events that are kept now and were not before."""

    duplicates: int
    """Events whose `event_id` was taken already."""


class RecommendResponse(_Message):
    """Items, best first, and what they are based on."""

    recommendation_id: str
    """Of this list; send it as `ranking_id` with the events that follow from it."""

    items: list[ScoredItem]
    """Best first; fewer than `n` where the catalogue has no more."""

    model_version: str
    """The artifact that answered."""

    state_version: int
    """The user's version that this reflects; 0 for a user without events."""

    n_support: int
    """Events that the model adapted to."""

    variant: str
    """The variant that answered."""

    fallback: Literal["prior"] | None
    """`prior`: nothing to adapt to (or it could not be), so these are for anybody."""

    events: AppendedEvents | None = None
    """What became of the request's events, where it brought some."""

    took_ms: float
    """Time in the server."""


class UserStateResponse(_Message):
    """What the service knows of a user."""

    user_id: str
    """The user."""

    tenant: str
    """The shop."""

    state_version: int
    """Grows with every request that adds an event."""

    n_events: int
    """Events ever accepted."""

    n_retained: int
    """Of those, how many are kept."""

    n_support: int
    """Of those, how many the model adapts to: known items, types that count, the last so many."""

    n_seen_items: int
    """Items that `exclude_seen` leaves out."""

    last_event_ms: int
    """UTC milliseconds of the latest event."""

    model_version: str
    """The artifact that would answer."""

    variant: str
    """The variant that would answer."""


class Health(_Message):
    """The server's own state."""

    status: Literal["ok", "ready"]
    """`ok`: the process answers. `ready`: models are loaded and the store answers."""


class ReadyResponse(Health):
    """The server can answer requests."""

    models: dict[str, dict[str, str]]
    """Tenant -> variant -> model version."""


class FieldProblem(_Message):
    """One value of a request that cannot be used."""

    field: str
    """Path of the value, e.g. `events.0.item_id`."""

    message: str
    """What is wrong with it."""


class Problem(_Message):
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
