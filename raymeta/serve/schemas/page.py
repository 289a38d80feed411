"""What the page at `/` is told beside the answers of the API: what to show of items, and real
histories to replay."""

from typing import Annotated

from pydantic import Field

from raymeta.serve.schemas.base import Message


class Category(Message):
    """Items of one kind."""

    name: str
    """As the catalogue has it."""

    num_items: int
    """Items in it that may be shown."""


class ShopFacts(Message):
    """What the page needs to know of the model that answers."""

    num_items: int
    """Items that may be shown."""

    categories: list[Category]
    """The largest first; empty where the items' features tell of none."""

    adapts_to: list[str]
    """Event types that move the model; others are kept, and move nothing."""

    can_replay: bool
    """Whether there are households to replay."""


class ItemCard(Message):
    """One item as it is shown."""

    item_id: str
    """The item."""

    title: str
    """Its name; its id where it has none."""

    category: str | None = None
    """Its kind."""

    price: float | None = None
    """Its price, in the shop's currency."""


class Shelf(Message):
    """Some items, those that most people like first."""

    items: list[ItemCard]
    """A part of them."""

    total: int
    """How many there are."""


class ReplayedEvent(Message):
    """One event of a real history, on an item that the model knows."""

    item_id: str
    """The item."""

    event_type: str
    """What was done."""

    timestamp: int
    """UTC milliseconds."""

    value: float | None = None
    """Rating, quantity or price; null where the data set has none."""

    place: str | None = None
    """Where it happened; null where that is not known."""


class Household(Message):
    """A user that training never met, and how well others foresaw it."""

    user_id: str
    """In the data set."""

    events: list[ReplayedEvent]
    """The first of its events, in the order of time: what is replayed."""

    positive: list[bool]
    """Of each event: whether it makes its item one to find."""

    later: list[str]
    """Items to find after the last of `events`."""

    ndcg_at_10: dict[str, list[float]]
    """Baseline -> nDCG@10 of its list before any event, after one, ... against what came later."""


class Households(Message):
    """Users to replay, and with whose model they belong."""

    model_version: str
    """The artifact whose training never met them."""

    households: Annotated[list[Household], Field(min_length=1)]
    """Those with the fewest events first."""
