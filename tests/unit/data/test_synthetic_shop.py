"""The generated shop: its clicks follow the model that it states, and its seed decides it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raymeta.data.synthetic_shop import (
    EVENT_COLUMNS,
    LIST_LENGTH,
    VISITS_PER_SLICE,
    Shop,
    event_slice,
    examination,
    item_table,
    make_world,
    purchase_rates,
    write_events,
)

SHOP = Shop(num_users=400, num_items=240, num_visits=VISITS_PER_SLICE + 500, seed=5)


@pytest.fixture(scope="module")
def events() -> pa.Table:
    return event_slice(SHOP, 0)


def of_type(events: pa.Table, name: str) -> pa.Table:
    return events.filter(pc.equal(events["event_type"], name))


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([int(text.split("-")[1]) for text in column.to_pylist()])


def test_clicks_follow_examination_times_affinity(events: pa.Table) -> None:
    shown, clicked = of_type(events, "impression"), of_type(events, "click")
    user, item = numbers(shown["user_id"]), numbers(shown["item_id"])
    affinity = make_world(SHOP).affinity(user, item)
    position = shown["position"].to_numpy()
    expected = np.bincount(position, examination(position) * affinity, minlength=LIST_LENGTH)
    found = np.bincount(clicked["position"].to_numpy(), minlength=LIST_LENGTH)
    # a sum of independent clicks: three standard deviations are at most 3 * sqrt(expected)
    assert (np.abs(found - expected) < 3.5 * np.sqrt(expected)).all()
    # divided by the propensity that the log states, every position clicks as often as it is liked
    by_position = np.bincount(position, affinity, minlength=LIST_LENGTH)
    unbiased = found / examination(np.arange(LIST_LENGTH)) / by_position
    np.testing.assert_allclose(unbiased, 1.0, atol=0.12)
    assert found[0] > 3 * found[-1], "position matters, or there is nothing to correct"
    assert clicked["propensity"].to_numpy() == pytest.approx(
        examination(clicked["position"].to_numpy())
    )


@pytest.mark.parametrize("tastes", [True, False])
def test_the_rates_foretell_the_purchases(tastes: bool) -> None:
    shop = replace(SHOP, num_visits=VISITS_PER_SLICE, tastes=tastes)
    bought = of_type(event_slice(shop, 0), "purchase")
    user, item = numbers(bought["user_id"]), numbers(bought["item_id"])
    share = np.diff(make_world(shop).activity, prepend=0.0)
    rate = purchase_rates(shop, np.arange(shop.num_users)) * share[:, None] * shop.num_visits
    expected = rate.sum()
    assert abs(len(user) - expected) < 4 * np.sqrt(expected)
    # by item, and by whether it is of the shopper's favourite category
    by_item = np.bincount(item, minlength=shop.num_items)
    surprise = (by_item - rate.sum(axis=0)) / np.sqrt(rate.sum(axis=0))
    assert np.sqrt(np.mean(surprise**2)) < 1.25
    world = make_world(shop)
    favourite = world.taste.argmax(axis=1)
    expected = rate[favourite[:, None] == world.category].sum()
    found = (favourite[user] == world.category[item]).sum()
    assert abs(found - expected) < 4 * np.sqrt(expected)


def test_without_tastes_all_shoppers_are_alike() -> None:
    rates = purchase_rates(replace(SHOP, tastes=False), np.arange(SHOP.num_users))
    np.testing.assert_array_equal(rates, rates[:1].repeat(len(rates), axis=0))
    assert purchase_rates(SHOP, np.arange(SHOP.num_users)).std(axis=0).min() > 0


def test_what_is_done_follows_what_was_shown(events: pa.Table) -> None:
    keys = {}
    for name in ("impression", "click", "view", "cart", "purchase"):
        rows = of_type(events, name)
        keys[name] = set(
            zip(*(rows[c].to_pylist() for c in ("ranking_id", "item_id")), strict=True)
        )
        assert len(keys[name]) == rows.num_rows, "an item stands in a list once"
    assert keys["purchase"] < keys["cart"] < keys["click"] < keys["impression"]
    assert keys["view"] == keys["click"]


def test_searches_have_a_query_and_lists_of_its_category(events: pa.Table) -> None:
    searches = of_type(events, "search")
    assert searches["item_id"].null_count == searches.num_rows > 0
    assert searches["query"].null_count == 0
    shown = of_type(events, "impression").filter(
        pc.is_valid(of_type(events, "impression")["query"])
    )
    category = item_table(SHOP)["category"].take(pa.array(numbers(shown["item_id"])))
    assert category.to_pylist() == shown["query"].to_pylist()


def test_slices_come_in_time_order_and_do_not_depend_on_each_other(events: pa.Table) -> None:
    second = event_slice(SHOP, 1)
    times = events["timestamp"].cast(pa.int64()).to_numpy()
    assert (np.diff(times) >= 0).all()
    assert pc.max(of_type(events, "impression")["timestamp"]).as_py() < (
        pc.min(second["timestamp"]).as_py()
    )
    assert event_slice(SHOP, 1).equals(second)
    other = Shop(num_users=400, num_items=240, num_visits=VISITS_PER_SLICE + 500, seed=6)
    assert not event_slice(other, 1).equals(second)


def test_the_log_is_streamed_to_a_file(tmp_path: Path, events: pa.Table) -> None:
    number = write_events(SHOP, tmp_path / "events.parquet")
    written = pq.read_table(tmp_path / "events.parquet")
    assert written.num_rows == number == events.num_rows + event_slice(SHOP, 1).num_rows
    assert written.schema.equals(EVENT_COLUMNS)
    assert pq.ParquetFile(tmp_path / "events.parquet").num_row_groups == 2
