"""Protocol P3: what is held back, its measures by hand, and its baselines on known biases."""

import numpy as np
import pytest

from raymeta.data.events import History
from raymeta.data.ratings import rated, shrunk_means
from raymeta.errors import DataError
from raymeta.evaluation.ratings import ItemMean, UserItemBias, hold_back, rating_errors


def history(items: list[int], ratings: list[float]) -> History:
    count = len(items)
    zeros = np.zeros(count, np.int64)
    times = np.arange(count, dtype=np.int64)
    return History(np.array(items), zeros, times, np.array(ratings, np.float32), zeros)


def test_the_last_ratings_are_held_back_and_unknown_items_counted() -> None:
    users = [history([0, 1, -1, 2], [1, 2, 3, 4]), history([0, 1], [1, 1])]
    tasks = hold_back(users, num_query=2)
    assert len(tasks) == 1  # the second has nothing before its last two
    assert tasks.supports[0].item.tolist() == [0, 1]
    assert (tasks.items[0].tolist(), tasks.ratings[0].tolist()) == ([2], [4.0])
    assert tasks.num_outside == 1
    assert hold_back(users, num_query=2, support_size=1).supports[0].item.tolist() == [1]
    assert len(hold_back(users, num_query=2, support_size=0).supports[0]) == 0
    with pytest.raises(DataError, match="more than 9 ratings"):
        hold_back(users, num_query=9)


class Fixed:
    def predict(self, supports, items):
        return [np.array([3.0, 2.0, 1.0, 5.0])[wanted] for wanted in items]


def test_measures_by_hand() -> None:
    tasks = hold_back([history([0, 0, 1, 2, 3], [1, 5, 1, 3, 4])], num_query=4)
    errors = rating_errors(Fixed(), tasks)
    assert errors["mae"][0] == pytest.approx((2 + 1 + 2 + 1) / 4)
    # ranked 3, 0, 1 of gains 31, 1, 7, 15; best 31, 15, 7
    discounts = 1 / np.log2([2, 3, 4])
    expected = (discounts @ [15, 31, 1]) / (discounts @ [31, 15, 7])
    assert errors["ndcg_at_3"][0] == pytest.approx(expected)


def test_shrinkage_follows_the_data() -> None:
    rng = np.random.default_rng(0)
    num_items, per_item = 5000, 5
    truth = rng.normal(3.0, 0.5, num_items)
    items = np.repeat(np.arange(num_items), per_item)
    ratings = truth[items] + rng.normal(0.0, 1.0, len(items))
    means = shrunk_means(items, ratings, num_items=num_items + 1)
    raw = np.bincount(items, ratings) / per_item
    # the best linear shrinkage is n / (n + variance within / variance between) = 5 / (5 + 4)
    slope = np.polyfit(raw - ratings.mean(), means[:-1] - ratings.mean(), 1)[0]
    assert slope == pytest.approx(5 / 9, abs=0.03)
    assert means[-1] == pytest.approx(ratings.mean())  # an item without ratings
    assert ((means[:-1] - truth) ** 2).mean() < ((raw - truth) ** 2).mean()
    with pytest.raises(DataError, match="no ratings to learn from"):
        shrunk_means(items[:0], ratings[:0], num_items=3)


def test_biases_of_users_and_items_are_told_apart() -> None:
    """Kind users rate items 0..4 more, harsh ones 5..9; all items are equally good."""
    rng = np.random.default_rng(1)
    train = []
    for user in range(200):
        kind = user % 2 == 0
        mine, others = rng.choice(5, 4, replace=False), rng.choice(5, 1)
        items = [*(mine + (0 if kind else 5)), *(others + (5 if kind else 0))]
        train.append(history(items, [4.5 if kind else 2.5] * 5))
    facts = {"num_items": 10, "positive_types": (0,)}
    tasks = hold_back([history([5, 6, 7, 0, 1], [2.5] * 5)], num_query=2)
    plain = rating_errors(ItemMean(train, **facts), tasks)["mae"][0]
    biased = rating_errors(UserItemBias(train, user_shrinkage=0.1, **facts), tasks)["mae"][0]
    assert plain > 1.2  # item means say that items 0 and 1 are good
    assert biased < 0.3


def test_only_positive_types_and_known_values_are_ratings() -> None:
    one = History(
        np.array([0, 1, -1, 2]),
        np.array([0, 1, 0, 0]),
        np.arange(4),
        np.array([1.0, 2.0, 3.0, np.nan], np.float32),
        np.zeros(4, np.int64),
    )
    items, ratings = rated([one], positive_types=(0,))
    assert (items.tolist(), ratings.tolist()) == ([0], [1.0])
