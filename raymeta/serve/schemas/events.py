"""Events of users, and what became of them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from raymeta.config.serving import DEFAULT
from raymeta.serve.schemas.base import Id, Message, Name, Text, TimestampMs, examples

EXAMPLE_EVENT = {"event_id": "b2f7", "item_id": "shoe-1", "event_type": "purchase", "value": 1}


class Event(Message):
    """One thing that a user did."""

    model_config = examples(
        EXAMPLE_EVENT, {"event_type": "search", "query": "red shoes", "timestamp": 1767225600000}
    )

    event_id: Id | None = None
    """Yours, unique within the user: an event sent again with it counts once, and another event
    under it is refused with 409. Without one, an event that is sent again counts again."""

    item_id: Id | None = None
    """The item it was about; one that the model does not know is kept, and does not adapt. Only an
    event with a `query` may do without."""

    event_type: Name
    """What was done, e.g. `purchase`."""

    timestamp: TimestampMs | None = None
    """When: UTC milliseconds, or ISO-8601 with a zone. The server's clock if not given."""

    value: float | None = None
    """Rating, quantity or price."""

    visit_id: Id | None = None
    """The basket, order or session."""

    place: Id | None = None
    """Where it happened: a branch, a channel, a country's site. A model that knows places adapts to
    it; one that it does not know is kept."""

    query: Text | None = None
    """What was searched for."""

    ranking_id: Id | None = None
    """The list it came from: the `recommendation_id` of an answer."""

    position: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """0-based place in that list."""

    propensity: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Probability with which the list showed the item there."""

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if self.item_id is None and self.query is None:
            raise ValueError("item_id is missing; only an event with a query may do without")
        return self


class EventsRequest(Message):
    """Events of one user, kept all or none."""

    model_config = examples({"user_id": "ann", "events": [EXAMPLE_EVENT]})

    user_id: Id
    """The user."""

    events: Annotated[list[Event], Field(min_length=1)]
    """What the user did, in any order."""

    tenant: Name = DEFAULT
    """The shop."""


class AppendedEvents(Message):
    """What became of events."""

    accepted: int
    """Events that are kept now and were not before."""

    duplicates: int
    """Events that were sent before under their `event_id`."""

    erased: int
    """Events of before the user's erasure; they are not kept."""


class EventsResponse(AppendedEvents):
    """What became of the events; sent once they are durable."""

    model_config = examples(
        {"accepted": 1, "duplicates": 0, "erased": 0, "state_version": 17, "durable": True}
    )

    state_version: int
    """The user's version: an answer with this one or a higher one reflects these events."""

    durable: bool
    """Whether they outlive a crash of the store; false with a store in memory, say."""
