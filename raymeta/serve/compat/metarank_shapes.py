"""Metarank's messages."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from raymeta.serve.compat.base import Foreign, MomentMs
from raymeta.serve.schemas.base import Id, Name


class NamedValue(Foreign):
    """What is known of something."""

    name: Name
    """The feature."""

    value: JsonValue
    """Its value."""


class _Sent(Foreign):
    id: Id
    """Of the event."""

    timestamp: MomentMs
    """When."""

    fields: list[NamedValue] = Field(default_factory=list)
    """What is known of it."""

    tenant: Name | None = None
    """The shop."""


class ItemEvent(_Sent):
    """Something is known of an item."""

    event: Literal["item"]
    item: Id
    """The item."""


class UserEvent(_Sent):
    """Something is known of a user."""

    event: Literal["user"]
    user: Id
    """The user."""


class ShownItem(Foreign):
    """An item of a list."""

    id: Id
    """The item."""


class Ranking(_Sent):
    """A list that was shown, or is to be ordered."""

    user: Id | None = None
    """The user; the session stands for one who is not known."""

    session: Id | None = None
    """The visit."""

    items: Annotated[list[ShownItem], Field(min_length=1)]
    """What it has, in order."""

    def query(self) -> str | None:
        """What was searched for."""
        found = (field.value for field in self.fields if field.name == "query")
        text = next(found, None)
        return text[:1024] if isinstance(text, str) and "\x00" not in text else None


class RankingEvent(Ranking):
    """A list that was shown."""

    event: Literal["ranking"]


class Interaction(_Sent):
    """What a user did with an item."""

    event: Literal["interaction"]
    type: Name
    """The type of event."""

    item: Id
    """The item."""

    ranking: Id | None = None
    """The list that it was in."""

    user: Id | None = None
    """The user; the session stands for one who is not known."""

    session: Id | None = None
    """The visit."""


Sent = Annotated[ItemEvent | UserEvent | RankingEvent | Interaction, Field(discriminator="event")]


class Accepted(Foreign):
    """What became of events."""

    accepted: int
    """Events that are kept."""

    status: Literal["ok"] = "ok"
    """They are."""

    tookMillis: int  # noqa: N815
    """Time in the server."""

    updated: int
    """Of those, how many were not known before."""


class RecommendationsRequest(Foreign):
    """Asks for items for a user, or like the items given."""

    count: Annotated[int, Field(ge=1)] = 10
    """How many."""

    user: Id | None = None
    """The user."""

    items: list[Id] = Field(default_factory=list)
    """Items that the answer is to go with."""


class RankedItem(Foreign):
    """One item of an answer."""

    item: str
    """The item."""

    score: float
    """The adapted model's score; one that the model does not know has that of the last."""

    features: list[NamedValue] | None = None
    """With `explain`: what the user's events on an item did to the score."""


class Ranked(Foreign):
    """Items, best first."""

    took: int
    """Milliseconds in the server."""

    items: list[RankedItem]
    """The items."""


class Healthy(Foreign):
    """The server's own state."""

    status: Literal["ok"] = "ok"
    """It answers."""
