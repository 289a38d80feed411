"""Held-back ratings: what is held back, measures by hand, biases and means of known worlds."""

import numpy as np
import pytest

from raymeta.data.events import History
from raymeta.data.ratings import fit_biases, rated, shrunk_means
from raymeta.errors import DataError
from raymeta.evaluation.ratings import hold_back, order_metrics, rating_metrics


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
    found = rating_metrics(Fixed(), tasks)
    assert found["mae"][0] == pytest.approx((2 + 1 + 2 + 1) / 4)
    # ranked 3, 0, 1 of gains 31, 1, 7, 15; best 31, 15, 7
    discounts = 1 / np.log2([2, 3, 4])
    expected = (discounts @ [15, 31, 1]) / (discounts @ [31, 15, 7])
    assert found["ndcg_at_3"][0] == pytest.approx(expected)
    # of the two best (5 and 4) the first two places have both
    assert found["mrr_at_5"][0] == found["ndcg_at_5"][0] == found["click_ndcg_at_5"][0] == 1.0


def test_random_ratings_are_held_back_the_same_way_at_every_size() -> None:
    users = [history(list(range(20)), list(np.arange(20) % 5 + 1.0)) for _ in range(3)]
    every, few = (hold_back(users, num_query=5, support_size=n, draw=0) for n in (None, 3))
    other = hold_back(users, num_query=5, draw=1)
    for row in range(3):
        assert every.items[row].tolist() == few.items[row].tolist()
        known = every.supports[row].item
        assert sorted([*known, *every.items[row]]) == list(range(20))
        assert few.supports[row].item.tolist() == known[-3:].tolist()
    assert any(a.tolist() != b.tolist() for a, b in zip(every.items, other.items, strict=True))


def test_ties_at_the_border_are_cut_at_random() -> None:
    """The closed form is the mean over many random cuts; so is the expectation of chance."""
    rng = np.random.default_rng(0)
    ratings = np.array([5.0, 4, 4, 4, 4, 3, 3, 2, 1, 1])
    predicted = rng.normal(size=10)
    found = order_metrics(predicted, ratings, liked_from=4.0)
    order = np.argsort(-predicted)
    drawn = []
    for _ in range(4000):
        best = np.lexsort((rng.random(10), -ratings))[:5]
        hits = np.isin(order[:5], best)
        discounts = 1 / np.log2(np.arange(2, 7))
        first = 1 / (1 + hits.argmax()) if hits.any() else 0.0
        drawn.append([hits.mean(), (hits * discounts).sum() / discounts.sum(), first])
    means = [found[name] for name in ("precision_at_5", "ndcg_at_5", "mrr_at_5")]
    np.testing.assert_allclose(means, np.mean(drawn, axis=0), atol=0.02)


def test_no_liked_item_gives_no_click_ndcg() -> None:
    found = order_metrics(np.arange(4.0), np.array([1.0, 2, 3, 3]), liked_from=4.0)
    assert np.isnan(found["click_ndcg_at_5"])


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
    found = fit_biases(train, num_items=10, positive_types=(0,), user_shrinkage=0.1)
    plain = shrunk_means(*rated(train, positive_types=(0,)), num_items=10)
    assert plain[:5].mean() - plain[5:].mean() > 1.0
    assert abs(found.item_means[:5].mean() - found.item_means[5:].mean()) < 0.3
    assert found.of_user(np.array([5, 6, 7]), np.full(3, 2.5)) == pytest.approx(-1.0, abs=0.2)
    # what is counted of an item is what its raters leave
    own = [found.of_user(h.item, h.value) for h in train]
    total = sum(
        float((h.value - b - found.mean)[h.item == 0].sum())
        for h, b in zip(train, own, strict=True)
    )
    assert found.totals[0] == pytest.approx(total)
    assert found.counts.sum() == 1000
