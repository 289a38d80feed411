"""Asking for items, in any of the ways, and the one form of an answer."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from raymeta.config.serving import DEFAULT
from raymeta.serve.schemas.base import Id, Message, Name, Text, examples
from raymeta.serve.schemas.events import EXAMPLE_EVENT, AppendedEvents, Event

MAX_PINS = 50

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr


class Range(Message):
    """Numbers from `min` to `max`, both included."""

    min: float | None = None
    """At least this."""

    max: float | None = None
    """At most this."""


Filter = dict[Name, Scalar | Annotated[list[Scalar], Field(max_length=1000)] | Range]
"""Feature -> one value, any of several, or a range. An item without the feature does not pass."""


class Pin(Message):
    """An item that the shop wants at a place."""

    item_id: Id
    """The item."""

    position: Annotated[int, Field(ge=0, lt=1000)]
    """0-based place in the answer."""


class _Answered(Message):
    """Which model answers, and how much it says."""

    variant: Name | None = None
    """Which of the tenant's models; its default if not given."""

    tenant: Name = DEFAULT
    """The shop."""

    explain: bool = False
    """Say of each item which of the user's events moved it, and by how much."""


class _Recommended(_Answered):
    """How items out of the whole catalogue are chosen."""

    n: Annotated[int, Field(ge=1)] = 10
    """How many items."""

    exclude: list[Id] = Field(default_factory=list)
    """Items to leave out; unknown ones are ignored."""

    exclude_seen: bool = True
    """Leave out the items that the user has events on (impressions do not count)."""

    exclude_bought: bool = False
    """Leave out what the user's retained events have a purchase of; for `exclude_seen: false`."""

    filter: Filter = Field(default_factory=dict)
    """Only items that pass all of these."""

    pins: Annotated[list[Pin], Field(max_length=MAX_PINS)] = Field(default_factory=list)
    """Items at fixed places, before filters and what the user has seen."""

    diversity: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """0 ranks by score alone, 1 by being unlike the items above alone (maximal marginal
    relevance)."""

    @model_validator(mode="after")
    def _pins_differ(self) -> Self:
        if len({pin.position for pin in self.pins}) < len(self.pins):
            raise ValueError("two pins have one position")
        if len({pin.item_id for pin in self.pins}) < len(self.pins):
            raise ValueError("two pins have one item")
        return self


class RecommendRequest(_Recommended):
    """Asks for items for one user; may bring events, which are kept first."""

    model_config = examples(
        {"user_id": "ann", "n": 5},
        {"user_id": "ann", "n": 5, "events": [EXAMPLE_EVENT], "filter": {"price": {"max": 50}}},
    )

    user_id: Id
    """The user; one without events gets what the model gives anybody."""

    events: list[Event] = Field(default_factory=list)
    """What the user did since; made durable before the answer, which reflects it."""

    exploration: Annotated[float, Field(ge=0.001, le=1000.0)] | None = None
    """Temperature of a draw instead of the best: each next item with probability proportional to
    exp(score / temperature) (Plackett-Luce). The answer has its propensities, which are logged."""

    interleave: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = None
    """Two variants in one list, in turns (team-draft): what users take up of it tells which they
    prefer, from far fewer users than two lists do. Each item names the variant that picked it."""

    @model_validator(mode="after")
    def _propensities_are_exact(self) -> Self:
        if self.exploration is not None and self.diversity > 0:
            raise ValueError("diversity would make the propensities of exploration wrong")
        return self

    @model_validator(mode="after")
    def _interleaves_two_rankings(self) -> Self:
        if self.interleave is None:
            return self
        if self.interleave[0] == self.interleave[1]:
            raise ValueError("interleave names one variant twice")
        if self.variant is not None or self.exploration is not None or self.pins:
            raise ValueError("interleave goes without variant, exploration and pins")
        return self


class SessionRequest(_Recommended):
    """Asks for items for a visitor known by these events alone; nothing is kept."""

    model_config = examples({"n": 5, "events": [EXAMPLE_EVENT]})

    events: list[Event] = Field(default_factory=list)
    """What the visitor did."""


class RankRequest(_Answered):
    """Asks for the order of given items for one user."""

    model_config = examples({"user_id": "ann", "items": ["shoe-1", "shoe-2"]})

    user_id: Id
    """The user."""

    items: Annotated[list[Id], Field(min_length=1)]
    """The items to order, such as the hits of a search or the ads of an auction."""

    scenario: Literal["recommend", "search", "ads"] = "recommend"
    """What the order is for; a `query` makes it `search`."""

    query: Text | None = None
    """What was searched for."""

    slot: Annotated[int, Field(ge=1, lt=10_000)] | None = None
    """With `ads`: the number of the place that is to be filled, as the `value` of impressions has
    it. Not given: the usual one."""

    events: list[Event] = Field(default_factory=list)
    """What the user did since; made durable before the answer, which reflects it."""


class PredictRequest(_Answered):
    """Asks for probabilities of what a user will do with items."""

    model_config = examples({"user_id": "ann", "items": ["shoe-1"], "targets": ["click"]})

    user_id: Id
    """The user."""

    items: Annotated[list[Id], Field(min_length=1)]
    """The items."""

    targets: Annotated[list[Literal["click", "conversion", "purchase_intent"]], Field(min_length=1)]
    """What is to be predicted."""

    slot: Annotated[int, Field(ge=1, lt=10_000)] | None = None
    """The number of the place that shows the items; not given: the usual one."""


class Reason(Message):
    """What one part of a user's history did to the score of an item."""

    item_id: str
    """The item of the events."""

    event_type: str
    """Their type."""

    effect: float
    """The item's score less what it would be without the user's events on that item of that
    type."""


class ScoredItem(Message):
    """One recommendation."""

    id: str
    """The item."""

    score: float
    """The adapted model's score: for order, not a probability."""

    prior_score: float
    """Its score for a user of whom nothing is known."""

    probabilities: dict[str, float] | None = None
    """Of models that are trained for it: the probability of each target if the item is shown, a
    `conversion` being a click and a conversion after it."""

    propensity: float | None = None
    """With `exploration`: the probability of this item at this place, given those above it; their
    product is the probability of the list."""

    variant: str | None = None
    """With `interleave`: the variant that picked it."""

    pinned: bool | None = None
    """True where the shop wanted it here."""

    reasons: list[Reason] | None = None
    """With `explain`: what moved it, the largest effect first."""


class RecommendResponse(Message):
    """Items, best first, and what they are based on."""

    model_config = examples(
        {
            "recommendation_id": "2c9f0c62b7de4a6f8a3a4a1f5f2b7d1e.default",
            "items": [{"id": "shoe-2", "score": 1.52, "prior_score": -7.1}],
            "model_version": "5d1c0f1e2a3b4c5d",
            "catalogue_version": 3,
            "state_version": 17,
            "n_support": 12,
            "variant": "default",
            "fallback": None,
            "took_ms": 1.4,
        }
    )

    recommendation_id: str
    """Of this list; send it as `ranking_id` with the events that follow from it."""

    items: list[ScoredItem]
    """Best first; fewer than asked for where no more may be shown."""

    unknown_items: list[str] | None = None
    """Of the items given to be ranked, those that the model cannot score."""

    model_version: str
    """The artifact that answered."""

    catalogue_version: int
    """The shop's changes to items that it knew of; 0 without any."""

    state_version: int
    """The user's version that this reflects; 0 for a user without events."""

    n_support: int
    """Events that the model adapted to."""

    variant: str
    """The variant that answered."""

    fallback: Literal["prior", "store"] | None
    """`prior`: nothing to adapt to (or it could not be), so these are for anybody; `store`: the
    store did not answer, so these are for anybody."""

    events: AppendedEvents | None = None
    """What became of the request's events, where it brought some."""

    took_ms: float
    """Time in the server."""
