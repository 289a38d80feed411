"""Ranking metrics equal their slow definitions, on any scores, ties and masks included."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raymeta.evaluation import metrics

NEGATIVE = -math.inf

# how long an example takes depends on who else uses the machine
untimed = settings(deadline=None)


@st.composite
def rankings(draw):
    """A list of users: (scores with many ties and some masked, relevant items, never masked)."""
    num_items = draw(st.integers(2, 30))
    users = []
    for _ in range(draw(st.integers(1, 4))):
        scores = draw(st.lists(st.integers(-3, 3), min_size=num_items, max_size=num_items))
        relevant = draw(st.sets(st.integers(0, num_items - 1), min_size=1))
        masked = draw(st.sets(st.integers(0, num_items - 1))) - relevant
        users.append(([NEGATIVE if i in masked else s for i, s in enumerate(scores)], relevant))
    return users


def slow_order(scores):
    return sorted(range(len(scores)), key=lambda item: (-scores[item], item))


def slow_metrics(scores, relevant):
    order = slow_order(scores)
    gains = [1 / math.log2(rank + 1) for rank in range(1, 11)]
    dcg = sum(gain for gain, item in zip(gains, order, strict=False) if item in relevant)
    first = next(rank for rank, item in enumerate(order, start=1) if item in relevant)
    return {
        "ndcg_at_10": dcg / sum(gains[: len(relevant)]),
        "recall_at_20": len(relevant & set(order[:20])) / len(relevant),
        "mrr": 1 / first,
        "hit_rate_at_10": float(bool(relevant & set(order[:10]))),
    }


def as_tensors(users):
    scores = torch.tensor([scores for scores, _ in users], dtype=torch.float32)
    relevant = torch.zeros(scores.shape, dtype=torch.bool)
    for row, (_, items) in enumerate(users):
        relevant[row, list(items)] = True
    return scores, relevant


@untimed
@given(rankings())
def test_metrics_equal_the_plain_definition(users):
    values, _ = metrics.user_metrics(*as_tensors(users))
    assert set(values) == set(metrics.METRICS)
    for row, (scores, relevant) in enumerate(users):
        for name, expected in slow_metrics(scores, relevant).items():
            assert values[name][row].item() == pytest.approx(expected, abs=1e-12), name


@untimed
@given(rankings(), st.integers(1, 35))
def test_top_k_orders_ties_by_index_and_leaves_masked_items_out(users, k):
    scores, _ = as_tensors(users)
    ranked = metrics.top_k(scores, k)
    for row, (values, _) in enumerate(users):
        expected = [i if values[i] > NEGATIVE else -1 for i in slow_order(values)[:k]]
        assert ranked[row].tolist() == expected


@untimed
@given(rankings())
def test_metrics_lie_between_nothing_and_the_ceiling(users):
    scores, relevant = as_tensors(users)
    values, _ = metrics.user_metrics(scores, relevant)
    ceiling = metrics.ceiling(relevant.sum(1).numpy())
    for name in metrics.METRICS:
        assert (values[name] >= 0).all()
        assert (values[name].numpy() <= ceiling[name] + 1e-12).all()


@untimed
@given(rankings(), st.integers(0, 2**32 - 1))
def test_renaming_items_changes_nothing_where_no_scores_tie(users, seed):
    scores, relevant = as_tensors(users)
    # distinct values in the order that ties are broken in
    places = torch.argsort(torch.sort(scores, dim=1, descending=True, stable=True).indices, dim=1)
    scores = torch.where(scores == NEGATIVE, scores, -places.float())
    renamed = np.random.default_rng(seed).permutation(scores.shape[1])
    before, _ = metrics.user_metrics(scores, relevant)
    after, _ = metrics.user_metrics(scores[:, renamed], relevant[:, renamed])
    for name in metrics.METRICS:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_candidates", "num_relevant"), [(1, 1), (4, 1), (5, 2), (6, 6)])
def test_chance_is_the_mean_over_all_orders(num_candidates, num_relevant, monkeypatch):
    # cutoffs below the number of candidates, so that they are met
    monkeypatch.setattr(metrics, "CUTOFF", 2)
    monkeypatch.setattr(metrics, "RECALL_CUTOFF", 3)
    gains = [1.0, 1 / math.log2(3)]
    ideal = sum(gains[:num_relevant])
    orders = list(itertools.permutations(range(num_candidates)))
    totals = dict.fromkeys(metrics.METRICS, 0.0)
    for order in orders:
        found = [item < num_relevant for item in order]
        dcg = sum(g for g, hit in zip(gains, found, strict=False) if hit)
        totals["ndcg_at_10"] += dcg / ideal
        totals["recall_at_20"] += sum(found[:3]) / num_relevant
        totals["mrr"] += float(Fraction(1, found.index(True) + 1))
        totals["hit_rate_at_10"] += any(found[:2])
    expected = metrics.chance(np.array([num_relevant]), np.array([num_candidates]))
    for name, total in totals.items():
        assert expected[name][0] == pytest.approx(total / len(orders), abs=1e-12), name


def test_chance_of_users_with_different_candidates_is_each_one_alone():
    together = metrics.chance(np.array([3, 50, 7]), np.array([40, 900, 25]))
    for row, (relevant, candidates) in enumerate([(3, 40), (50, 900), (7, 25)]):
        alone = metrics.chance(np.array([relevant]), np.array([candidates]))
        for name in metrics.METRICS:
            assert together[name][row] == pytest.approx(alone[name][0], abs=1e-12)


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        metrics.top_k(torch.tensor([[0.0, float("nan")]]), 1)


def test_coverage_counts_items_recommended_to_anyone_once():
    assert metrics.coverage(torch.tensor([[0, 1, -1], [1, 2, -1]]), 10) == pytest.approx(0.3)
