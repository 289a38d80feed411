"""Gorse's messages, and users and items between its words and features."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, JsonValue

from raymeta.serve.compat.base import MomentMs, Pascal, iso
from raymeta.serve.schemas.base import Features, Id, Name, Text
from raymeta.serve.schemas.items import ItemPatch, ItemResponse, NamedItem
from raymeta.serve.schemas.users import UserFeatures, UserResponse

COMMENT, TIMESTAMP, LABELS = "comment", "timestamp", "labels"
"""Features that hold what Gorse has beside labels."""

Labels = Features | list[JsonValue] | None


class Feedback(Pascal):
    """What a user did with an item."""

    feedback_type: Name
    """The type of event."""

    user_id: Id
    """The user."""

    item_id: Id
    """The item."""

    value: float | None = None
    """Rating, quantity or price."""

    timestamp: MomentMs | None = None
    """When; the server's clock if not given."""


class KeptFeedback(Pascal):
    """Feedback as it is given back."""

    feedback_type: str
    """The type of event."""

    user_id: str
    """The user."""

    item_id: str
    """The item."""

    value: float
    """Rating, quantity or price; 0 where none was given."""

    timestamp: str
    """ISO-8601, UTC."""

    comment: str = ""
    """Always empty: none is kept."""


class UserPatch(Pascal):
    """What is to change of a user."""

    labels: Labels = None
    """Features; a list is one feature, `labels`."""

    comment: Text | None = None
    """The feature `comment`."""


class User(UserPatch):
    """A user."""

    user_id: Id
    """The user."""


class ItemChange(Pascal):
    """What is to change of an item."""

    is_hidden: bool | None = None
    """Whether it may not be recommended."""

    categories: Annotated[list[Text], Field(max_length=100)] | None = None
    """The feature that the settings name, `category`."""

    timestamp: MomentMs | None = None
    """The feature `timestamp`."""

    labels: Labels = None
    """Features; a list is one feature, `labels`."""

    comment: Text | None = None
    """The feature `comment`."""


class Item(ItemChange):
    """An item."""

    item_id: Id
    """The item."""


class KeptUser(Pascal):
    """A user as it is given back."""

    user_id: str
    """The user."""

    labels: dict[str, Any] | list[Any]
    """Features; a list where that is what was put."""

    comment: str
    """The feature `comment`."""


class KeptItem(Pascal):
    """An item as it is given back."""

    item_id: str
    """The item."""

    is_hidden: bool
    """Whether it may not be recommended."""

    categories: list[str]
    """The feature that the settings name."""

    timestamp: str
    """The feature `timestamp`; empty where it has none."""

    labels: dict[str, Any] | list[Any]
    """The other features; a list where that is what was put."""

    comment: str
    """The feature `comment`."""


class Affected(Pascal):
    """What a change did."""

    row_affected: int
    """How many rows it was about."""


class Scored(Pascal):
    """One recommendation."""

    id: str
    """The item."""

    score: float
    """The adapted model's score."""


class Ready(Pascal):
    """The server's own state."""

    ready: bool
    """Whether it answers."""


def user_features(user: UserPatch) -> UserFeatures:
    """A user's features; without any, an empty comment makes the user known."""
    features = _of_labels(user.labels)
    if user.comment is not None:
        features[COMMENT] = user.comment
    return UserFeatures(features=features)


def kept_user(user: UserResponse) -> KeptUser:
    """A user in Gorse's words."""
    return KeptUser(
        user_id=user.user_id,
        labels=_labels(user.features, {COMMENT}),
        comment=str(user.features.get(COMMENT, "")),
    )


def item_patch(item: ItemChange, category_feature: str) -> ItemPatch:
    """What Gorse says of an item, as features."""
    features = _of_labels(item.labels)
    if item.categories is not None:
        features[category_feature] = as_category(item.categories)
    if item.timestamp is not None:
        features[TIMESTAMP] = iso(item.timestamp)
    if item.comment:
        features[COMMENT] = item.comment
    return ItemPatch(
        features=features, available=None if item.is_hidden is None else not item.is_hidden
    )


def named_item(item: Item, category_feature: str) -> NamedItem:
    """An item whole: what is not said of it, it has not."""
    patch = item_patch(item, category_feature)
    features: Features = {n: value for n, value in patch.features.items() if value is not None}
    return NamedItem(
        item_id=item.item_id, features=features, available=patch.available is not False
    )


def kept_item(item: ItemResponse, category_feature: str) -> KeptItem:
    """An item in Gorse's words."""
    return KeptItem(
        item_id=item.item_id,
        is_hidden=not item.available,
        categories=as_categories(item.features.get(category_feature)),
        timestamp=str(item.features.get(TIMESTAMP, "")),
        labels=_labels(item.features, {COMMENT, TIMESTAMP, category_feature}),
        comment=str(item.features.get(COMMENT, "")),
    )


def as_category(categories: Sequence[str]) -> JsonValue:
    """Categories as a feature has them: one as a text, as most catalogues do, several as a list;
    none as no feature."""
    if not categories:
        return None
    return categories[0] if len(categories) == 1 else list(categories)


def as_categories(value: Any) -> list[str]:
    """The opposite."""
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _of_labels(labels: Labels) -> dict[str, JsonValue]:
    if labels is None:
        return {}
    return {LABELS: labels} if isinstance(labels, list) else dict(labels)


def _labels(features: dict[str, Any], own: set[str]) -> dict[str, Any] | list[Any]:
    """The opposite."""
    labels = {name: value for name, value in features.items() if name not in own}
    only = labels.get(LABELS)
    return only if isinstance(only, list) and len(labels) == 1 else labels
