"""A model's items as a page shows them: by category, by words, or by id, the most liked first.

Which column is the title, the price or the category is told from the catalogue's names. Leaves
what is recommended to `answers`.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from raymeta.serve.models import TenantModels
from raymeta.serve.recommender import Recommender
from raymeta.serve.schemas.page import Category, ItemCard, Shelf

TITLES = ("title", "name", "product_name")
CATEGORIES = ("category", "product_category", "department", "genre", "genres")
PRICES = ("price",)
"""Columns that may tell what is shown, the first that a catalogue has."""


class Storefront:
    """The items of one model that may be shown.

    Args:
        recommender: the model with the shop's changes.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        table = recommender.items
        self._columns = {
            role: next((n for n in names if n in table.items.column_names), None)
            for role, names in (("title", TITLES), ("category", CATEGORIES), ("price", PRICES))
        }
        self._cards = {
            card.item_id: card
            for row in _most_liked_first(recommender)
            if (card := self._card(row)) is not None
        }

    @cached_property
    def categories(self) -> list[Category]:
        """All that items have, the largest first."""
        counts = Counter(card.category for card in self._cards.values() if card.category)
        ordered = sorted(counts.items(), key=lambda named: (-named[1], named[0]))
        return [Category(name=name, num_items=count) for name, count in ordered]

    def __len__(self) -> int:
        return len(self._cards)

    def shelf(self, *, category: str | None, words: str, offset: int, n: int) -> Shelf:
        """Items of a category (or any) whose title or category has all words."""
        wanted = words.casefold().split()
        found = [
            card
            for card in self._cards.values()
            if (category is None or card.category == category)
            and all(word in self._text_of[card.item_id] for word in wanted)
        ]
        return Shelf(items=found[offset : offset + n], total=len(found))

    def cards(self, item_ids: Sequence[str]) -> list[ItemCard]:
        """The items of these ids, in their order; one that is not known is shown by its id."""
        return [
            self._cards.get(item_id) or ItemCard(item_id=item_id, title=item_id)
            for item_id in item_ids
        ]

    @cached_property
    def _text_of(self) -> dict[str, str]:
        return {
            item_id: f"{card.title} {card.category or ''}".casefold()
            for item_id, card in self._cards.items()
        }

    def _card(self, row: dict[str, Any]) -> ItemCard | None:
        """None for what the shop took out."""
        item_id = row["item_id"]
        change = self.recommender.items.changes.get(item_id)
        if change is not None:
            if change.deleted or not change.available:
                return None
            row = {**row, **change.features}
        title, category, price = (self._value(row, role) for role in self._columns)
        if isinstance(category, (list, tuple)):
            category = category[0] if category else None
        return ItemCard(
            item_id=item_id,
            title=str(title or item_id),
            category=str(category) if category else None,
            price=float(price) if isinstance(price, (int, float)) else None,
        )

    def _value(self, row: dict[str, Any], role: str) -> Any:
        column = self._columns[role]
        return None if column is None else row.get(column)


class Storefronts:
    """The storefront of each variant, made when it is first asked for and after each change."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Storefront] = {}

    def of(self, tenant: str, models: TenantModels, variant: str | None) -> Storefront:
        """The storefront of a tenant's variant.

        Raises:
            DataError: there is no such variant.
        """
        name, recommender = models.variant(variant)
        made = self._made.get((tenant, name))
        if made is None or made.recommender is not recommender:
            made = self._made[tenant, name] = Storefront(recommender)
        return made


def _most_liked_first(recommender: Recommender) -> list[dict[str, Any]]:
    """The catalogue's rows by their score for a user of whom nothing is known."""
    artifact = recommender.artifact
    prior_I = artifact.algorithm.score(artifact.meta_params, recommender.prior.state)[0]
    rows = recommender.items.items.to_pylist()
    return [rows[index] for index in prior_I.argsort(descending=True, stable=True).tolist()]
