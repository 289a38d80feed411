"""The shop's changes to its items."""

from typing import Annotated, Any

from pydantic import Field

from raymeta.config.serving import DEFAULT
from raymeta.serve.schemas.base import Features, Id, Message, Name, examples

EXAMPLE_ITEM = {"features": {"category": "shoes", "price": 39.9}, "available": True}


class ItemValues(Message):
    """An item as the shop has it."""

    model_config = examples(EXAMPLE_ITEM)

    features: Features = Field(default_factory=dict)
    """By feature name. Those that the model was trained on make a new item recommendable; all can
    be filtered by."""

    available: bool = True
    """Whether it may be recommended."""


class ItemPatch(Message):
    """What is to change of an item."""

    model_config = examples({"available": False})

    features: Features = Field(default_factory=dict)
    """By feature name; a null removes one."""

    available: bool | None = None
    """Whether it may be recommended; as it was if not given."""


class NamedItem(ItemValues):
    """An item and its id."""

    model_config = examples({"item_id": "shoe-9", **EXAMPLE_ITEM})

    item_id: Id
    """The item."""


class ItemsRequest(Message):
    """Items to add or replace, all in one version of the catalogue."""

    model_config = examples({"items": [{"item_id": "shoe-9", **EXAMPLE_ITEM}]})

    items: Annotated[list[NamedItem], Field(min_length=1)]
    """The items."""

    tenant: Name = DEFAULT
    """The shop."""


class ItemsResponse(Message):
    """What became of a change of items."""

    catalogue_version: int
    """An answer with this one or a higher one reflects the change."""

    recommendable: int
    """How many of the items the tenant's default model can recommend."""

    reason: str | None = None
    """Why the others cannot be."""


class ItemResponse(Message):
    """An item as the service knows it."""

    item_id: str
    """The item."""

    tenant: str
    """The shop."""

    features: dict[str, Any]
    """What the model's catalogue and the shop say of it."""

    available: bool
    """Whether it may be recommended."""

    recommendable: bool
    """Whether the tenant's default model can score it."""

    catalogue_version: int
    """Of the item's last change by the shop; 0 where there was none since training."""
