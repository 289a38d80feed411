"""Amazon Personalize's messages, runtime and events."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from raymeta.serve.compat.base import Camel
from raymeta.serve.schemas.base import EARLIEST_MS, LATEST_MS, Id, Name

Arn = Annotated[str, Field(max_length=256)]
Values = dict[Name, Annotated[str, Field(max_length=1000)]]
Properties = Annotated[str, Field(max_length=24_000)]


def _seconds_to_ms(value: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LATEST_MS:
        return value  # left to be refused, as what no moment is
    return int(value * 1000)


SentAt = Annotated[
    int,
    BeforeValidator(_seconds_to_ms, json_schema_input_type=float),
    Field(ge=EARLIEST_MS, le=LATEST_MS, strict=True),
]
"""Milliseconds, from the seconds that are sent."""


class SentEvent(Camel):
    """One thing that a user did."""

    event_type: Name
    """What."""

    sent_at: SentAt
    """When, in seconds."""

    event_id: Id | None = None
    """An event sent again with it counts once."""

    event_value: float | None = None
    """Rating, quantity or price."""

    item_id: Id | None = None
    """The item it was about; an event with an `impression` may do without."""

    recommendation_id: Id | None = None
    """The list it came from."""

    impression: Annotated[list[Id], Field(max_length=25)] = Field(default_factory=list)
    """What was shown."""


class PutEvents(Camel):
    """Events of one user."""

    session_id: Id
    """The visit; it stands for a user who is not known."""

    user_id: Id | None = None
    """The user."""

    event_list: Annotated[list[SentEvent], Field(min_length=1, max_length=10)]
    """The events."""


class PutUser(Camel):
    """What is known of a user."""

    user_id: Id
    """The user."""

    properties: Properties = "{}"
    """Features, as JSON in a text."""


class PutUsers(Camel):
    """Users to add or replace."""

    users: Annotated[list[PutUser], Field(min_length=1, max_length=10)]
    """The users."""


class PutItem(Camel):
    """What is known of an item."""

    item_id: Id
    """The item."""

    properties: Properties = "{}"
    """Features, as JSON in a text."""


class PutItems(Camel):
    """Items to add or replace."""

    items: Annotated[list[PutItem], Field(min_length=1, max_length=10)]
    """The items."""


class Filtered(Camel):
    """What keeps items out."""

    filter_arn: Arn | None = None
    """Personalize's own; its expression is not known here."""

    filter_values: Values = Field(default_factory=dict)
    """Feature -> quoted values, e.g. `"\\"shoes\\",\\"hats\\""`: items must have one of them."""


class Asked(Filtered):
    """What both ways to ask have."""

    campaign_arn: Arn | None = None
    """Its last part names the variant."""

    recommender_arn: Arn | None = None
    """Its last part names the variant."""

    metadata_columns: dict[str, list[Name]] = Field(default_factory=dict)
    """Under `ITEMS`: features that are given back."""


class Promotion(Filtered):
    """Items that get a share of the places."""

    name: Name
    """It is given back with its items."""

    percent_promoted_items: Annotated[int, Field(ge=1, le=100)]
    """The share."""


class RecommendationsRequest(Asked):
    """Asks for items for a user, or that go with an item."""

    user_id: Id | None = None
    """The user."""

    item_id: Id | None = None
    """Without a user: what the answer is to go with. With one: an item that is left out."""

    num_results: Annotated[int, Field(ge=0, le=500)] = 25
    """How many; 0 asks for 25, too."""

    promotions: Annotated[list[Promotion], Field(max_length=1)] = Field(default_factory=list)
    """One at most."""


class RankingRequest(Asked):
    """Asks for the order of given items."""

    user_id: Id
    """The user."""

    input_list: Annotated[list[Id], Field(min_length=1, max_length=500)]
    """The items."""


class PredictedItem(Camel):
    """One item of an answer."""

    item_id: str
    """The item."""

    score: float | None = None
    """The adapted model's score; none for an item that it does not know."""

    promotion_name: str | None = None
    """Of the promotion that put it there."""

    metadata: dict[str, str] | None = None
    """The features that were asked for."""


class Recommendations(Camel):
    """Items, best first."""

    item_list: list[PredictedItem]
    """The items."""

    recommendation_id: str
    """Of this list, to be sent with the events that follow from it."""


class PersonalizedRanking(Camel):
    """The given items, best first."""

    personalized_ranking: list[PredictedItem]
    """The items; those that the model does not know are last."""

    recommendation_id: str
    """Of this list, to be sent with the events that follow from it."""
