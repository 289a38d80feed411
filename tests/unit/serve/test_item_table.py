"""Filters on items, with a shop's changes over the catalogue's columns."""

import pyarrow as pa
import pytest

from raymeta.errors import DataError
from raymeta.serve.item_table import Condition, ItemTable
from raymeta.serve.user_events.base import ItemChange

ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "category": ["red", "blue", None, "red"],
        "price": [1.0, 5.0, None, 10.0],
        "size": [38, 39, 40, 41],
        "tags": [["x", "y"], ["y"], [], None],
    }
)
IDS = ITEMS["item_id"].to_pylist()


def table(*changes: ItemChange) -> ItemTable:
    return ItemTable(
        ITEMS, {i: n for n, i in enumerate(IDS)}, {c.item_id: c for c in changes}, version=1
    )


def passing(items: ItemTable, *conditions: Condition) -> list[str]:
    items.require(conditions)
    return [i for i, passes in zip(IDS, items.mask(conditions).tolist(), strict=True) if passes]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("category", any_of=("red",)), ["a", "d"]),
        (Condition("category", any_of=("blue", "red")), ["a", "b", "d"]),
        (Condition("category", any_of=("green",)), []),
        (Condition("category", at_least=1.0), []),
        (Condition("price", any_of=(5, 10.0)), ["b", "d"]),
        (Condition("price", at_least=1.0, at_most=5.0), ["a", "b"]),
        (Condition("price", at_most=4.9), ["a"]),
        (Condition("price"), ["a", "b", "d"]),
        (Condition("size", at_least=40), ["c", "d"]),
        (Condition("tags", any_of=("y",)), ["a", "b"]),
    ],
)
def test_conditions(condition: Condition, expected: list[str]) -> None:
    assert passing(table(), condition) == expected


def test_all_conditions_must_hold() -> None:
    both = (Condition("category", any_of=("red",)), Condition("price", at_least=2.0))
    assert passing(table(), *both) == ["d"]


def test_a_shops_changes_win_over_the_catalogue() -> None:
    items = table(
        ItemChange("a", {"category": "blue", "price": 100}),
        ItemChange("c", {"in_stock": True}),
        ItemChange("unknown", {"price": 1}),
    )
    assert passing(items, Condition("category", any_of=("blue",))) == ["a", "b"]
    assert passing(items, Condition("price", at_least=50.0)) == ["a"]
    assert passing(items, Condition("in_stock", any_of=(True,))) == ["c"]
    assert items.describe("a") == {
        "category": "blue",
        "price": 100,
        "size": 38,
        "tags": ["x", "y"],
    }


def test_what_is_closed_or_gone() -> None:
    items = table(ItemChange("b", available=False), ItemChange("d", deleted=True))
    assert items.closed == (1, 3)
    assert items.describe("b") is not None
    assert items.describe("d") is None
    assert items.describe("nowhere") is None


def test_a_feature_that_no_item_has_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'colour'.*Items have: category, price, size, tags"):
        passing(table(), Condition("colour", any_of=("red",)))


def test_numbers_beside_texts_are_compared_as_texts() -> None:
    items = table(ItemChange("a", {"category": 7}))
    assert passing(items, Condition("category", any_of=(7,))) == ["a"]
    assert passing(items, Condition("category", any_of=("7",))) == ["a"]
