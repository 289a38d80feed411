"""Each baseline equals a slow definition of itself."""

import numpy as np
import pytest
import torch

from raymeta.data import interactions
from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix, indicator_rows, support_indicator
from raymeta.errors import DataError
from raymeta.evaluation.baselines import ials
from raymeta.evaluation.baselines.ease import Ease, EaseSolver
from raymeta.evaluation.baselines.ials import ImplicitAls
from raymeta.evaluation.baselines.mixture import Mixture, standardise
from raymeta.evaluation.baselines.neighbours import ItemNeighbours
from raymeta.evaluation.baselines.popularity import Popularity

NUM_ITEMS = 9


def matrix(num_users=14, num_items=NUM_ITEMS, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        np.sort(rng.choice(num_items, rng.integers(1, num_items - 2), replace=False))
        for _ in range(num_users)
    ]
    return InteractionMatrix(indicator_rows(rows, num_items))


def support(*items, visit=0):
    item = np.array(items, np.int64)
    zeros = np.zeros(len(item), np.int64)
    return History(item, zeros, zeros, np.ones(len(item), np.float32), zeros + visit)


SUPPORTS = [support(2, 5, 5), support(0), support(-1, 7, 3)]


def dense(train):
    return train.users_items.toarray().astype(np.float64)


def test_interactions_are_distinct_positive_pairs_of_the_catalogue():
    purchases = support(3, 3, -1, 1)
    views = History(
        np.array([4]), np.array([1]), np.array([0]), np.ones(1, np.float32), np.array([0])
    )
    train = InteractionMatrix.from_histories([purchases, views], num_items=5, positive_types=(0,))
    assert dense(train).tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert train.counts.tolist() == [0, 1, 0, 1, 0]


def test_support_is_a_set():
    assert support_indicator(SUPPORTS, NUM_ITEMS).toarray()[0].tolist() == [
        0, 0, 1, 0, 0, 1, 0, 0, 0,
    ]  # fmt: skip


def test_popularity_ranks_by_users():
    train = matrix()
    scores = Popularity(train).score(SUPPORTS)
    np.testing.assert_allclose(scores, np.tile(np.log1p(dense(train).sum(0)), (3, 1)), rtol=1e-6)


def test_neighbours_equal_the_sum_over_pairs():
    train = matrix()
    x = dense(train)
    scores = ItemNeighbours(train, shrink=3.0, exponent=0.4).score(SUPPORTS)
    for row, items in enumerate([{2, 5}, {0}, {7, 3}]):
        for j in range(NUM_ITEMS):
            expected = sum(
                (x[:, i] @ x[:, j]) / ((x[:, i].sum() * x[:, j].sum()) ** 0.4 + 3.0)
                for i in items - {j}
            )
            assert scores[row, j] == pytest.approx(expected, rel=1e-5)


def test_an_item_that_nobody_has_is_nobodys_neighbour():
    train = InteractionMatrix(indicator_rows([np.array([0, 1])], 3))
    scores = ItemNeighbours(train, shrink=0.0, exponent=0.5).score([support(0)])
    assert scores.tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize(("num_users", "by_users"), [(5, True), (14, False)])
def test_ease_equals_its_closed_form_whichever_side_is_solved(num_users, by_users):
    train = matrix(num_users)
    solver = EaseSolver(train)
    assert solver.by_users is by_users
    x = dense(train)
    inverse = np.linalg.inv(x.T @ x + 2.5 * np.eye(NUM_ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    expected = support_indicator(SUPPORTS, NUM_ITEMS).toarray() @ weights
    scores = Ease(solver, regularisation=2.5).score(SUPPORTS)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_ials_lowers_its_objective_and_folds_in_by_an_exact_solve():
    train = matrix()
    x = dense(train)

    def factors(iterations):
        model = ImplicitAls(
            train, dim=3, unobserved=0.2, regularisation=0.01, num_iterations=iterations
        )
        return model, model._items.double().numpy()

    def fold_in(row, items):
        penalty = 0.01 * (row.sum() + 0.2 * NUM_ITEMS)
        seen = items[row > 0]
        normal = 0.2 * items.T @ items + seen.T @ seen + penalty * np.eye(3)
        return np.linalg.solve(normal, seen.sum(0))

    def objective(items):
        users = np.array([fold_in(row, items) for row in x])
        fit = users @ items.T
        user_penalty = (x.sum(1) + 0.2 * NUM_ITEMS) @ (users**2).sum(1)
        item_penalty = (x.sum(0) + 0.2 * len(x)) @ (items**2).sum(1)
        observed = ((1 - fit) ** 2 * x).sum()
        return observed + 0.2 * (fit**2).sum() + 0.01 * (user_penalty + item_penalty)

    reached = [objective(factors(n)[1]) for n in (1, 2, 4, 8)]
    assert reached == sorted(reached, reverse=True)
    model, items = factors(4)
    rows = support_indicator(SUPPORTS, NUM_ITEMS).toarray()
    expected = [items @ fold_in(row, items) for row in rows]
    np.testing.assert_allclose(model.score(SUPPORTS), expected, atol=1e-4)


def test_ials_solves_the_same_in_chunks(monkeypatch):
    train = matrix(40)
    options = {"dim": 2, "unobserved": 0.5, "regularisation": 0.01, "num_iterations": 2}
    whole = ImplicitAls(train, **options).score(SUPPORTS)
    monkeypatch.setattr(ials, "GATHERED_PER_CHUNK", 1)
    np.testing.assert_allclose(ImplicitAls(train, **options).score(SUPPORTS), whole, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        Popularity,
        lambda train: ItemNeighbours(train, shrink=1.0, exponent=0.5),
        lambda train: Ease(EaseSolver(train), regularisation=1.0),
        lambda train: ImplicitAls(train, dim=2, unobserved=0.1, regularisation=0.01),
    ],
)
def test_without_support_every_baseline_is_popularity(make):
    train = matrix()
    scores = make(train).score([History.empty(), support(-1), support(1)])
    np.testing.assert_allclose(scores[:2], np.tile(train.log_popularity, (2, 1)))
    assert np.isfinite(scores).all()


def test_a_mixture_weighs_parts_by_what_is_known():
    train = matrix()
    part = ItemNeighbours(train, shrink=1.0, exponent=0.5)
    mixture = Mixture(
        train, [part], weights={1: (0.5,), 3: (2.0,)}, unit="visits", positive_types=(0,)
    )
    one, two = support(4), support(4, visit=0)
    two = History(*(np.tile(getattr(two, n), 2) for n in ("item", "event_type", "timestamp_ms",
                  "value")), np.array([0, 1]))  # fmt: skip
    four = History(*(np.tile(getattr(one, n), 4) for n in ("item", "event_type", "timestamp_ms",
                   "value")), np.arange(4))  # fmt: skip
    prior = standardise(train.log_popularity[None])
    ours = standardise(part.score([one]))
    scores = mixture.score([History.empty(), one, two, four])
    expected = np.concatenate([prior, prior + 0.5 * ours, prior + 0.5 * ours, prior + 2.0 * ours])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_catalogue_too_large_for_a_dense_matrix_is_refused(monkeypatch):
    monkeypatch.setattr(interactions, "MAX_DENSE_ITEMS", 4)
    with pytest.raises(DataError, match="9 items"):
        ItemNeighbours(matrix(), shrink=1.0, exponent=0.5)


def test_scores_are_float32():
    train = matrix()
    for scorer in (
        Popularity(train),
        ItemNeighbours(train, shrink=1.0, exponent=0.5),
        Ease(EaseSolver(matrix(5)), regularisation=1.0),
        ImplicitAls(train, dim=2, unobserved=0.1, regularisation=0.01),
    ):
        assert torch.from_numpy(scorer.score(SUPPORTS)).dtype == torch.float32
