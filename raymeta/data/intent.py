"""Purchases by category: a user's baskets, the moments at which to ask, and what is bought next.

A basket is what a user buys at one time. A row is a moment and a category; its label is whether
the user buys in the category within the horizon after the moment. Moments come after each basket,
and again after each whole horizon without one (`MAX_SILENT` times), so that a user who stays away
is asked about too. What is known at a moment are the baskets up to it, and that none has followed.

Shapes: V baskets of all users end to end, R moments, C categories, T users, M moments of a user.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MS_PER_DAY = 86_400_000.0

MAX_SILENT = 3
"""Moments in one pause after its first."""

_BY_MOMENT = ("num_baskets", "num_days", "silent_days", "basket_size")
_BY_CATEGORY = ("bought", "since_days")
KNOWN = (*_BY_MOMENT, *_BY_CATEGORY)
"""What is counted at a moment."""


@dataclass(frozen=True)
class IntentRows:
    """How rows are made of events: a part of the definition of `adapt`, stored in the artifact.

    Attributes:
        horizon_days: within so many days after the moment the purchase must come.
        max_moments: adapting sees the last so many moments whose horizon has passed.
        column: the item column that names the category.
        categories: the categories `[C]` that are asked about.
        category_of_item: catalogue index -> position in `categories`, -1 for none of them.
    """

    horizon_days: float
    max_moments: int
    column: str
    categories: tuple[str, ...]
    category_of_item: NDArray[np.int64] = field(compare=False, repr=False)

    @property
    def horizon_ms(self) -> int:
        return round(self.horizon_days * MS_PER_DAY)


def categories_of(items: pa.Table, column: str, categories: Sequence[str]) -> NDArray[np.int64]:
    """Where the category of each item stands in `categories`, -1 for none of them."""
    found = pc.index_in(items[column].cast(pa.string()), value_set=pa.array(categories))
    return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


@dataclass(frozen=True)
class Baskets:
    """The baskets of some users, by user and time.

    Attributes:
        user: `[V]` row of the user.
        time_ms: `[V]`.
        has: `[V, C]` whether something of the category is in it.
        first, end: `[T]` where each user's baskets begin, and where they end.
    """

    user: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    has: NDArray[np.bool_]
    first: NDArray[np.int64]
    end: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        time_ms: NDArray[np.int64],
        *,
        num_users: int,
        rows: IntentRows,
    ) -> "Baskets":
        """Groups purchases `[E]` of catalogue items, in any order."""
        order = np.lexsort((time_ms, user))
        user, time_ms, category = user[order], time_ms[order], rows.category_of_item[item[order]]
        starts = np.ones(len(user), np.bool_)
        starts[1:] = (np.diff(user) != 0) | (np.diff(time_ms) != 0)
        basket = np.cumsum(starts) - 1
        has = np.zeros((int(starts.sum()), len(rows.categories)), np.bool_)
        asked = category >= 0
        has[basket[asked], category[asked]] = True
        end = np.cumsum(np.bincount(user[starts], minlength=num_users))
        return cls(user[starts], time_ms[starts], has, np.concatenate([[0], end[:-1]]), end)


@dataclass(frozen=True)
class Moments:
    """Moments, each `[R]`: the user, the basket before it (-1 before the first), and the time."""

    user: NDArray[np.int64]
    basket: NDArray[np.int64]
    time_ms: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> "Moments":
        return Moments(self.user[keep], self.basket[keep], self.time_ms[keep])


@dataclass(frozen=True)
class Asked:
    """Moments of one user that are to be judged.

    Attributes:
        now_ms: `[R]`.
        label: `[R, C]`, 1 where the category is bought within the horizon after the moment.
    """

    now_ms: NDArray[np.int64]
    label: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.now_ms)


def moments_of(baskets: Baskets, *, until_ms: NDArray[np.int64], horizon_ms: int) -> Moments:
    """All moments whose whole horizon has passed at `until_ms` `[T]`, by user and time."""
    each = np.repeat(np.arange(len(baskets.user)), 1 + MAX_SILENT)
    silent = np.tile(np.arange(1 + MAX_SILENT), len(baskets.user))
    time_ms = baskets.time_ms[each] + silent * horizon_ms
    user = baskets.user[each]
    has_next = each + 1 < baskets.end[user]
    next_ms = baskets.time_ms[np.minimum(each + 1, len(baskets.user) - 1)]
    before_next = ~has_next | (time_ms < next_ms)
    passed = time_ms + horizon_ms <= until_ms[user]
    return Moments(user, each, time_ms).where(before_next & passed)


def arrivals_of(baskets: Baskets) -> Moments:
    """Of each user with a basket the moment just before the first, when nothing is known."""
    user = np.flatnonzero(baskets.end > baskets.first)
    first_ms = baskets.time_ms[baskets.first[user]]
    return Moments(user, np.full(len(user), -1), first_ms - 1)


def known_at(baskets: Baskets, moments: Moments) -> dict[str, NDArray[np.float32]]:
    """What the baskets up to each moment say.

    Returns:
        `[R]` `num_baskets`; `num_days` since the first; `silent_days` since the last;
        `basket_size`, the mean number of categories in one. `[R, C]` `bought`, the baskets with
        the category; `since_days` since the last of them, 0 where there is none.
    """
    last, some = np.maximum(moments.basket, 0), moments.basket >= 0
    num_categories = baskets.has.shape[1]
    shape = (len(some), num_categories)
    if not len(baskets.user):
        nothing = {name: np.zeros(len(some), np.float32) for name in _BY_MOMENT}
        return {**nothing, **{name: np.zeros(shape, np.float32) for name in _BY_CATEGORY}}
    first = baskets.first[baskets.user[last]]
    total = np.vstack([np.zeros((1, num_categories), np.int64), np.cumsum(baskets.has, axis=0)])
    bought = np.where(some[:, None], total[last + 1] - total[first], 0)
    place = np.where(baskets.has, np.arange(len(baskets.user))[:, None], -1)
    latest = np.maximum.accumulate(place, axis=0)[last]
    since = (moments.time_ms[:, None] - baskets.time_ms[latest]) / MS_PER_DAY
    num_baskets = np.where(some, last - first + 1, 0)
    known = {
        "num_baskets": num_baskets,
        "num_days": (moments.time_ms - baskets.time_ms[first]) / MS_PER_DAY * some,
        "silent_days": (moments.time_ms - baskets.time_ms[last]) / MS_PER_DAY * some,
        "basket_size": bought.sum(1) / np.maximum(num_baskets, 1),
        "bought": bought,
        "since_days": np.where(bought > 0, since, 0.0),
    }
    return {name: value.astype(np.float32) for name, value in known.items()}


def bought_within(baskets: Baskets, moments: Moments, *, horizon_ms: int) -> NDArray[np.float32]:
    """The labels `[R, C]`: 1 where the category is in a basket after the moment, and at most the
    horizon after it. `baskets` must reach over all horizons."""
    num_baskets, num_categories = baskets.has.shape
    place = np.where(baskets.has, np.arange(num_baskets)[:, None], num_baskets)
    coming = np.minimum.accumulate(place[::-1], axis=0)[::-1]
    coming = np.vstack([coming, np.full((1, num_categories), num_baskets)])
    start = np.where(moments.basket >= 0, moments.basket + 1, baskets.first[moments.user])
    found = coming[start]
    own = found < baskets.end[moments.user][:, None]
    time_ms = baskets.time_ms[np.minimum(found, num_baskets - 1)]
    return np.asarray(own & (time_ms <= moments.time_ms[:, None] + horizon_ms), np.float32)


def intent_support(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    time_ms: NDArray[np.int64],
    *,
    num_users: int,
    rows: IntentRows,
) -> dict[str, NDArray[Any]]:
    """The support of a batch of users from their purchases `[E]` of catalogue items.

    A row counts once it is decided: its horizon has passed when the user's own last event comes,
    so that the wall clock has no part in it. Beside the rows stands what is known now, after that
    event, which is what a prediction starts from.

    Returns:
        `KNOWN` and `label` of the last `max_moments` moments, `[T, M]` or `[T, M, C]`, with `mask`
        `[T, M]`; what is known after the last event, `now_...`, `[T]` or `[T, C]`; `last_ms`
        float64 `[T]`, the time of that event; `count` `[T, 1]`, the baskets.
    """
    baskets = Baskets.of(user, item, time_ms, num_users=num_users, rows=rows)
    last_ms = np.zeros(num_users, np.int64)
    some = baskets.end > baskets.first
    last_ms[some] = baskets.time_ms[baskets.end[some] - 1]
    decided = moments_of(baskets, until_ms=last_ms, horizon_ms=rows.horizon_ms)
    per_user = np.bincount(decided.user, minlength=num_users)
    from_end = np.repeat(np.cumsum(per_user), per_user) - np.arange(len(decided.user)) - 1
    decided = decided.where(from_end < rows.max_moments)
    per_user = np.minimum(per_user, rows.max_moments)
    column = np.arange(len(decided.user)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    width = 1 << max(0, int(per_user.max(initial=1)) - 1).bit_length()
    values = {
        **known_at(baskets, decided),
        "label": bought_within(baskets, decided, horizon_ms=rows.horizon_ms),
        "mask": np.ones(len(decided.user), np.bool_),
    }
    support: dict[str, NDArray[Any]] = {}
    for name, value in values.items():
        padded = np.zeros((num_users, width, *value.shape[1:]), value.dtype)
        padded[decided.user, column] = value
        support[name] = padded
    now = Moments(np.arange(num_users), np.where(some, baskets.end - 1, -1), last_ms)
    for name, value in known_at(baskets, now).items():
        support[f"now_{name}"] = value
    support["last_ms"] = last_ms.astype(np.float64)
    support["count"] = support["now_num_baskets"][:, None]
    return support
