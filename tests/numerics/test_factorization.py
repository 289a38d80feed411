"""The co-occurrence model against its closed forms, and a user taken out of it against a refit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from raymeta.algorithms import presets
from raymeta.algorithms.bound import bind
from raymeta.data.events import pad_items
from raymeta.models.cooccurrence import Cooccurrence, cooccurrence
from raymeta.models.factorization import Factorization
from raymeta.models.ranking_losses import soft_ndcg_loss
from raymeta.types import Examples, TaskBatch

USERS, ITEMS, RIDGE = 12, 9, 2.0


def log() -> np.ndarray:
    """Users and items, each item of at least two users: no more users than items of any weight."""
    matrix = (np.random.default_rng(5).random((USERS, ITEMS)) < 0.45).astype(np.float64)
    matrix[0] = matrix[1] = 1.0
    return matrix


def model_of(matrix: np.ndarray, *, ridge: float = RIDGE, **options: object) -> Factorization:
    start = cooccurrence(sparse.csr_array(matrix), dim=ITEMS)
    exact = Cooccurrence(**{name: t.double() for name, t in start.tables().items()})
    # the tables are float32, exact to its rounding only
    dense = torch.from_numpy(weighted(matrix, options.get("item_exponent", 0.0)))
    spectrum, vectors = (part.flip(-1) for part in torch.linalg.eigh(dense.T @ dense))
    kept = spectrum > 1e-9
    exact = replace(exact, item_vectors=vectors[:, kept], spectrum=spectrum[kept])
    return Factorization(exact, regularisation=ridge, **options)


def weighted(matrix: np.ndarray, exponent: float) -> np.ndarray:
    return matrix * matrix.sum(0) ** -exponent


def support(items: list[list[int]]) -> Examples:
    rows = pad_items([np.array(i, np.int64) for i in items])
    shape = rows["item"].shape
    return {
        **rows,
        "event_type": torch.zeros(shape, dtype=torch.int64),
        "count": torch.ones(shape, dtype=torch.float64),
        "age_days": torch.zeros(shape, dtype=torch.float64),
    }


def test_one_step_adds_the_ridge_regression_of_the_support() -> None:
    matrix, lr = log(), 0.7
    learner = presets.cavia(model_of(matrix), inner_lr=lr, num_inner_steps=1)
    params = learner.init(torch.Generator())
    scores = learner.score(params, learner.adapt(params, support([[1, 4]])))[0]
    gram = matrix.T @ matrix
    regression = np.linalg.solve(gram + RIDGE * np.eye(ITEMS), gram)
    expected = lr * regression[[1, 4]].sum(0) / np.trace(regression) * ITEMS
    prior = np.log((matrix.sum(0) + 1) / (matrix.sum(0) + 1).sum())
    torch.testing.assert_close(scores, torch.from_numpy(prior + expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_users", [1, 3, 4, 18])
def test_records_of_any_number_of_users_give_the_learners_numbers(num_users: int) -> None:
    learner = presets.cavia(model_of(log()), inner_lr=0.7, num_inner_steps=2)
    params = learner.init(torch.Generator())
    bound = bind(learner, params)
    rows = support([[user % ITEMS, (user * 5 + 2) % ITEMS] for user in range(num_users)])
    state = bound.adapt(rows)
    expected = learner.adapt(params, rows)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value)
    torch.testing.assert_close(bound.score(state), learner.score(params, expected))
    some = torch.tensor([[0, 3]]).expand(num_users, 2)
    torch.testing.assert_close(
        bound.score(state, some), learner.score(params, expected).gather(1, some)
    )


def test_weighted_items_and_a_large_ridge_are_neighbours_by_cosine() -> None:
    matrix = log()
    start = cooccurrence(sparse.csr_array(matrix), dim=ITEMS, item_exponent=0.5)
    model = Factorization(start, regularisation=1e7, item_exponent=0.5)
    learner = presets.cavia(model, inner_lr=1.0, num_inner_steps=1)
    params = learner.init(torch.Generator())
    scores = learner.score(params, learner.adapt(params, support([[1, 4]])))[0]
    together, users = matrix.T @ matrix, matrix.sum(0)
    cosine = together / np.sqrt(np.outer(users, users))
    prior = np.log((users + 1) / (users + 1).sum())
    expected = torch.from_numpy(prior + cosine[[1, 4]].sum(0)).float()
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("user", "exponent", "ridge"),
    [(1, 0.0, RIDGE), (4, 0.0, RIDGE), (7, 0.0, RIDGE), (4, 0.5, 1e5)],
)
def test_a_training_user_left_out_is_a_log_without_it(
    user: int, exponent: float, ridge: float
) -> None:
    matrix = log()
    own = np.flatnonzero(matrix[user])
    seen, later = own[:2], own[2:]
    query = pad_items([later])
    rows = support([seen.tolist()])

    def loss(matrix: np.ndarray, rows: Examples) -> torch.Tensor:
        # the filter is scaled by the mean similarity, which one user changes: undone by the rate
        model = model_of(matrix, ridge=ridge, outer_loss="softmax", item_exponent=exponent)
        dense = weighted(matrix, exponent)
        gram = dense.T @ dense
        rate = np.trace(np.linalg.solve(gram + ridge * np.eye(ITEMS), gram)) / ITEMS
        rate *= max(1.0, ridge / USERS)  # a large ridge leaves little to see
        learner = presets.cavia(model, inner_lr=float(rate), num_inner_steps=1)
        return learner.query_losses(learner.init(torch.Generator()), TaskBatch(rows, query))

    # the counts' total differs too, by a constant of the prior that softmax does not see
    refit = loss(np.delete(matrix, user, axis=0), rows)
    left_out = loss(
        matrix,
        {
            **rows,
            "own_item": torch.from_numpy(own)[None],
            "own_mask": torch.ones(1, len(own), dtype=torch.bool),
        },
    )
    torch.testing.assert_close(left_out, refit, rtol=1e-3, atol=1e-3)
    assert (loss(matrix, rows) - refit).abs() > 20 * (left_out - refit).abs()


def test_serving_keeps_the_first_columns_and_gives_their_scores() -> None:
    model = model_of(log(), serving_dim=4)
    learner = presets.meta_sgd(model, inner_lr=0.5, num_inner_steps=2)
    served, params = learner.served(learner.init(torch.Generator()))
    assert served.tables()["item_vectors"].shape == (ITEMS, 4)
    assert params["context"].shape == params["rule.context"].shape == (4,)
    rows = support([[0, 3, 5]])
    state = served.adapt(params, rows)
    assert state["context"].shape == (1, 4)
    assert served.score(params, state).shape == (1, ITEMS)
    again, same = served.served(params)
    torch.testing.assert_close(again.adapt(same, rows)["context"], state["context"])


def test_a_step_moves_the_served_columns_as_far_as_it_moved_them_in_training() -> None:
    learner = presets.cavia(model_of(log(), serving_dim=4), inner_lr=0.5, num_inner_steps=1)
    params = learner.init(torch.Generator())
    served, served_params = learner.served(params)
    rows = support([[0, 3, 5]])
    context = served.adapt(served_params, rows)["context"]
    torch.testing.assert_close(context, learner.adapt(params, rows)["context"][:, :4])


def test_the_soft_loss_is_its_formula_item_by_item() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(40, generator=generator, dtype=torch.float64)
    relevant = (torch.rand(40, generator=generator) < 0.3).double()
    hidden = torch.zeros(40, dtype=torch.float64)
    hidden[:5] = 1.0
    shown = range(5, 40)
    values = [float(s) for s in scores[5:]]
    softness = 0.2 * float(np.std(values, ddof=1))
    dcg = 0.0
    for item in shown:
        steps = [1 / (1 + np.exp((float(scores[item]) - v) / softness)) for v in values]
        rank = 1.0 + sum(steps) - 0.5
        gate = 1 / (1 + np.exp(rank - 10.5))
        dcg += float(relevant[item]) * gate / np.log2(1 + rank)
    possible = min(10, int(relevant[5:].sum()))
    ideal = sum(1 / np.log2(2 + place) for place in range(possible))
    assert float(soft_ndcg_loss(scores, relevant, hidden)) == pytest.approx(1 - dcg / ideal)
    assert float(soft_ndcg_loss(scores, relevant * 0, hidden)) == 1.0


def test_the_soft_loss_does_not_see_scale_shift_or_hidden_items() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(30, generator=generator, dtype=torch.float64)
    relevant = (torch.rand(30, generator=generator) < 0.3).double()
    hidden = (torch.rand(30, generator=generator) < 0.2).double()
    loss = soft_ndcg_loss(scores, relevant, hidden)
    torch.testing.assert_close(soft_ndcg_loss(3.0 * scores + 7.0, relevant, hidden), loss)
    moved = torch.where(hidden > 0, scores + 100.0, scores)
    torch.testing.assert_close(soft_ndcg_loss(moved, relevant, hidden), loss)
    torch.testing.assert_close(soft_ndcg_loss(scores, relevant.maximum(hidden), hidden), loss)
