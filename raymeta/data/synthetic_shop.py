"""A generated shop whose click model is known: views, carts, purchases, searches, impressions.

Each shopper has a taste over categories. A visit shows one ranked list, of a search or of the home
page, and an item at `position` is clicked with

    P(click) = examination(position) * affinity(shopper, item)

The log's `propensity` is the examination, so that what position did can be told from what taste
did. Visits come in time order and shoppers are mixed in them, as in a real log. The same seed gives
the same log, and any part of it can be made on its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raymeta.seeding import derive_seed

CATEGORIES = (
    "backpacks", "blankets", "books", "candles", "clocks", "coffee", "cushions", "games",
    "gloves", "headphones", "jackets", "kettles", "knives", "lamps", "mugs", "notebooks",
    "pans", "plants", "posters", "puzzles", "scarves", "shoes", "teas", "towels",
)  # fmt: skip

BRANDS = ("Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Larch", "Maple", "Oak", "Rowan")
COLOURS = ("amber", "black", "blue", "coral", "green", "grey", "ivory", "red", "teal", "white")

LIST_LENGTH = 10
"""Items shown in a ranking."""

VISITS_PER_SLICE = 16_384
"""Visits made at once: about a quarter of a million events."""

_START_MS = 1_704_067_200_000  # 2024-01-01
_SPAN_MS = 120 * 86_400_000
_SEARCH_SHARE = 0.7
_CART_RATE, _PURCHASE_RATE = 0.6, 0.8
_INDIFFERENT_TASTE = 0.3

EVENT_COLUMNS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("value", pa.float64()),
        ("query", pa.string()),
        ("ranking_id", pa.string()),
        ("position", pa.int32()),
        ("propensity", pa.float64()),
        ("visit_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class Shop:
    """How large the shop is.

    Attributes:
        num_users: shoppers.
        num_items: items, spread evenly over `CATEGORIES`.
        num_visits: visits of all shoppers together; each gives about 13 events.
        seed: everything follows from it.
        tastes: without them all shoppers like all categories alike, so that nothing a shopper did
            tells what the shopper will do: a gain from adapting would be a leak.
    """

    num_users: int = 2_000
    num_items: int = 480
    num_visits: int = 40_000
    seed: int = 0
    tastes: bool = True

    @property
    def num_slices(self) -> int:
        return -(-self.num_visits // VISITS_PER_SLICE)


@dataclass(frozen=True)
class World:
    """What is true of a shop and not in its log.

    Attributes:
        taste: `[users, categories]` in [0, 1], the favourite category of each shopper at 1; the
            same everywhere in a shop without tastes.
        activity: `[users]` cumulative share of the visits.
        category: `[items]`.
        appeal: `[items]` in [0.5, 1].
        popularity: `[items]` cumulative share with which the home page shows items.
        segment: `[users]` the category that the user table names: the favourite, 7 times in 10.
    """

    taste: NDArray[np.float32]
    activity: NDArray[np.float64]
    category: NDArray[np.int64]
    appeal: NDArray[np.float64]
    popularity: NDArray[np.float64]
    segment: NDArray[np.int64]

    def affinity(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability that a shopper who examines an item clicks it; shapes broadcast."""
        return (0.03 + 0.67 * self.taste[user, self.category[item]]) * self.appeal[item]


def examination(position: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability that the item at a 0-based position is looked at."""
    return np.asarray((1.0 + position) ** -0.8, np.float64)


@lru_cache(maxsize=2)
def make_world(shop: Shop) -> World:
    """The truth of a shop, from its seed."""
    rng = np.random.default_rng(derive_seed(shop.seed, "world"))
    weight = rng.standard_gamma(0.25, (shop.num_users, len(CATEGORIES))).astype(np.float32)
    taste = weight / np.maximum(weight.max(axis=1, keepdims=True), np.float32(1e-30))
    favourite = taste.argmax(axis=1)
    if not shop.tastes:
        taste = np.full_like(taste, _INDIFFERENT_TASTE)
    told = rng.random(shop.num_users) < 0.7
    popularity = 1.0 / (1.0 + rng.permutation(shop.num_items)) ** 0.7
    activity = rng.lognormal(0.0, 0.8, shop.num_users)
    return World(
        taste=taste,
        activity=np.cumsum(activity) / activity.sum(),
        category=np.arange(shop.num_items) % len(CATEGORIES),
        appeal=rng.uniform(0.5, 1.0, shop.num_items),
        popularity=np.cumsum(popularity) / popularity.sum(),
        segment=np.where(told, favourite, rng.integers(0, len(CATEGORIES), shop.num_users)),
    )


def event_slice(shop: Shop, number: int) -> pa.Table:
    """The events of the `number`-th slice of visits, in time order, as `EVENT_COLUMNS`."""
    world = make_world(shop)
    rng = np.random.default_rng(derive_seed(shop.seed, "slice", number))
    first = number * VISITS_PER_SLICE
    visit = np.arange(first, min(first + VISITS_PER_SLICE, shop.num_visits))
    user = _draw(rng, world.activity, len(visit))
    start_ms = _START_MS + ((visit + rng.random(len(visit))) / shop.num_visits * _SPAN_MS).astype(
        np.int64
    )
    searched = _searched_category(rng, world, user)
    shown, is_shown = _rankings(rng, world, searched)
    position = np.broadcast_to(np.arange(LIST_LENGTH), shown.shape)
    chance = examination(position) * world.affinity(user[:, None], shown)
    clicked = is_shown & (rng.random(shown.shape) < chance)
    carted = clicked & (rng.random(shown.shape) < _CART_RATE)
    bought = carted & (rng.random(shown.shape) < _PURCHASE_RATE)
    click_ms = start_ms[:, None] + 5_000 * (position + 1)
    rows = [
        _rows("impression", is_shown, np.broadcast_to(start_ms[:, None], shown.shape), shown),
        _rows("click", clicked, click_ms, shown),
        _rows("view", clicked, click_ms + 1_000, shown),
        _rows("cart", carted, click_ms + 2_000, shown),
        _rows("purchase", bought, click_ms + 3_000, shown),
        _search_rows(searched, start_ms),
    ]
    table = _events(rows, visit=visit, user=user, searched=searched, rng=rng)
    return table.take(pc.sort_indices(table.column("timestamp")))


def purchase_rates(
    shop: Shop, users: NDArray[np.int64], *, num_lists: int = 4_096
) -> NDArray[np.float64]:
    """Purchases that a visit of each of `users` brings of each item on average, `[users, items]`.

    The order that no recommender can beat, from what the log does not say:

        rate(u, i) = sum_q P(q | u) exposure(q, i) * affinity(u, i) * P(bought | clicked)

    with q a searched category or the home page, and exposure(q, i) the mean examination of i in
    the lists of q, over `num_lists` of them (standard error about 1 / sqrt(num_lists)).
    """
    world = make_world(shop)
    rng = np.random.default_rng(derive_seed(shop.seed, "exposure"))
    seen = examination(np.arange(LIST_LENGTH))
    exposure = np.zeros((len(CATEGORIES) + 1, shop.num_items))
    for category in range(-1, len(CATEGORIES)):  # the home page is -1, and the last row
        shown, is_shown = _rankings(rng, world, np.full(num_lists, category))
        weight = np.where(is_shown, seen, 0.0) / num_lists
        exposure[category] = np.bincount(shown.ravel(), weight.ravel(), minlength=shop.num_items)
    taste = world.taste[users].astype(np.float64)
    searches = _SEARCH_SHARE * taste / taste.sum(axis=1, keepdims=True)
    examined = searches @ exposure[:-1] + (1.0 - _SEARCH_SHARE) * exposure[-1]
    affinity = world.affinity(users[:, None], np.arange(shop.num_items))
    return np.asarray(examined * affinity * _CART_RATE * _PURCHASE_RATE, np.float64)


def item_table(shop: Shop) -> pa.Table:
    """The catalogue: id, title, category, brand, price."""
    world = make_world(shop)
    rng = np.random.default_rng(derive_seed(shop.seed, "items"))
    brand = pa.array(BRANDS).take(pa.array(rng.integers(0, len(BRANDS), shop.num_items)))
    colour = pa.array(COLOURS).take(pa.array(rng.integers(0, len(COLOURS), shop.num_items)))
    category = pa.array(CATEGORIES).take(pa.array(world.category))
    item_id = _ids("item-", np.arange(shop.num_items))
    title = pc.binary_join_element_wise(brand, colour, category, item_id, " ")
    return pa.table(
        {
            "item_id": item_id,
            "title": title,
            "category": category,
            "brand": brand,
            "price": np.round(rng.lognormal(3.0, 0.6, shop.num_items), 2),
        }
    )


def user_table(shop: Shop) -> pa.Table:
    """The shoppers: id and a segment, which tells a little of their taste."""
    segment = pa.array(CATEGORIES).take(pa.array(make_world(shop).segment))
    return pa.table({"user_id": _ids("user-", np.arange(shop.num_users)), "segment": segment})


def write_events(shop: Shop, path: Path) -> int:
    """Streams the whole log into one Parquet file; returns the number of events."""
    total = 0
    with pq.ParquetWriter(path, EVENT_COLUMNS, compression="zstd") as writer:
        for table in iter_slices(shop, 0, shop.num_slices):
            writer.write_table(table)
            total += table.num_rows
    return total


def iter_slices(shop: Shop, start: int, stop: int) -> Iterator[pa.Table]:
    """The slices from `start` up to `stop`, one after the other."""
    return (event_slice(shop, number) for number in range(start, stop))


@dataclass(frozen=True)
class _Rows:
    """Events of one type: which visit and item, when, and where in its list."""

    event_type: str
    visit: NDArray[np.int64]
    item: NDArray[np.int64]
    position: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]


def _rows(
    event_type: str,
    happened: NDArray[np.bool_],
    timestamp_ms: NDArray[np.int64],
    shown: NDArray[np.int64],
) -> _Rows:
    visit, position = np.nonzero(happened)
    at = (visit, position)
    return _Rows(event_type, visit, shown[at], position, timestamp_ms[at])


def _search_rows(searched: NDArray[np.int64], start_ms: NDArray[np.int64]) -> _Rows:
    visit = np.flatnonzero(searched >= 0)
    nothing = np.full(len(visit), -1)
    return _Rows("search", visit, nothing, nothing, start_ms[visit])


def _searched_category(
    rng: np.random.Generator, world: World, user: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The category that each visit searches, drawn by taste; -1 where it opens the home page."""
    share = np.cumsum(world.taste[user], axis=1)
    drawn = rng.random((len(user), 1)) * share[:, -1:]
    category = (share < drawn).sum(axis=1)
    return np.where(rng.random(len(user)) < _SEARCH_SHARE, category, -1)


def _rankings(
    rng: np.random.Generator, world: World, searched: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Items shown to each visit `[visits, LIST_LENGTH]`, without repeats, and which are filled."""
    drawn = _draw(rng, world.popularity, (len(searched), 2 * LIST_LENGTH))
    num_categories = len(CATEGORIES)
    # a search shows the items of its category that stand where the drawn ones stand in theirs
    inside = drawn - drawn % num_categories + searched[:, None]
    inside = np.where(inside < len(world.category), inside, searched[:, None])
    items = np.where(searched[:, None] >= 0, inside, drawn)
    by_item = np.argsort(items, axis=1, kind="stable")
    in_order = np.take_along_axis(items, by_item, axis=1)
    repeated_in_order = np.zeros(items.shape, np.bool_)
    repeated_in_order[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeated = np.zeros(items.shape, np.bool_)
    np.put_along_axis(repeated, by_item, repeated_in_order, axis=1)
    first = np.argsort(repeated, axis=1, kind="stable")[:, :LIST_LENGTH]
    return np.take_along_axis(items, first, axis=1), ~np.take_along_axis(repeated, first, axis=1)


def _events(
    rows: list[_Rows],
    *,
    visit: NDArray[np.int64],
    user: NDArray[np.int64],
    searched: NDArray[np.int64],
    rng: np.random.Generator,
) -> pa.Table:
    local = np.concatenate([r.visit for r in rows])
    item = np.concatenate([r.item for r in rows])
    position = np.concatenate([r.position for r in rows])
    types = pa.array([r.event_type for r in rows])
    which = np.repeat(np.arange(len(rows)), [len(r.visit) for r in rows])
    user_ids, visit_ids = _ids("user-", user), _ids("visit-", visit)
    ranking_ids = pc.binary_replace_slice(visit_ids, 0, 5, "list")
    queries = pa.array(CATEGORIES).take(pa.array(searched, mask=searched < 0))
    bought = pa.array(which == [r.event_type for r in rows].index("purchase"))
    quantity = pa.array(rng.geometric(0.8, len(local)).astype(np.float64))
    columns = [
        user_ids.take(pa.array(local)),
        pc.if_else(pa.array(item < 0), None, _ids("item-", np.maximum(item, 0))),
        types.take(pa.array(which)),
        pa.array(np.concatenate([r.timestamp_ms for r in rows])),
        pc.if_else(bought, quantity, None),
        queries.take(pa.array(local)),
        ranking_ids.take(pa.array(local)),
        pa.array(position, mask=position < 0),
        pa.array(examination(np.maximum(position, 0)), mask=position < 0),
        visit_ids.take(pa.array(local)),
    ]
    return pa.table(
        [c.cast(f.type) for c, f in zip(columns, EVENT_COLUMNS, strict=True)],
        schema=EVENT_COLUMNS,
    )


def _ids(prefix: str, number: NDArray[np.int64]) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(number).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _draw(
    rng: np.random.Generator, cumulative: NDArray[np.float64], size: int | tuple[int, int]
) -> NDArray[np.int64]:
    """Indices drawn by cumulative shares."""
    drawn = np.searchsorted(cumulative, rng.random(size), side="right")
    return np.minimum(drawn, len(cumulative) - 1)
