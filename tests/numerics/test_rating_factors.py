"""Item vectors of ratings: a world of known vectors, one of noise, and groups that are left out."""

from dataclasses import replace

import numpy as np
import pytest

from raymeta.data.events import History
from raymeta.data.rating_factors import fit_factors, group_of, grouped_vectors
from raymeta.data.ratings import RatingBiases, fit_biases

NUM_ITEMS, NUM_USERS, NUM_RATINGS, DIM = 12, 400, 8, 2
POSITIVE = {"positive_types": (0,), "dim": DIM}


def world(vectors: np.ndarray, *, noise: float = 0.5) -> list[History]:
    rng = np.random.default_rng(0)
    users = []
    for _ in range(NUM_USERS):
        item = rng.choice(NUM_ITEMS, NUM_RATINGS, replace=False)
        left = vectors[item] @ rng.standard_normal(DIM) + rng.normal(0.0, noise, NUM_RATINGS)
        zeros = np.zeros(NUM_RATINGS, np.int64)
        users.append(History(item, zeros, zeros, (3.0 + left).astype(np.float32), zeros))
    return users


def no_biases() -> RatingBiases:
    nothing = np.zeros(NUM_ITEMS)
    return RatingBiases(nothing + 3.0, nothing.astype(np.int64), nothing, 3.0, np.inf)


def test_vectors_and_noise_of_a_known_world_are_found() -> None:
    vectors = np.random.default_rng(1).normal(0.0, 0.8, (NUM_ITEMS, DIM))
    found = fit_factors(world(vectors), no_biases(), regularisation=1e-3, **POSITIVE)
    # known up to a turn, so their products are compared
    truth, fitted = vectors @ vectors.T, found.vectors @ found.vectors.T
    assert np.abs(fitted - truth).mean() < 0.1 * np.abs(truth).mean() + 0.05
    assert found.noise == pytest.approx(0.25, abs=0.03)


def test_where_there_is_only_noise_vectors_are_small() -> None:
    users = world(np.zeros((NUM_ITEMS, DIM)))
    found = fit_factors(users, no_biases(), positive_types=(0,), dim=DIM)
    assert np.abs(found.vectors @ found.vectors.T).mean() < 0.01


def test_the_vectors_of_a_group_do_not_know_its_ratings() -> None:
    users = world(np.random.default_rng(1).normal(0.0, 0.8, (NUM_ITEMS, DIM)))
    before = grouped_vectors(users, no_biases(), **POSITIVE)
    own = group_of(users[0])
    users[0] = replace(users[0], value=5.0 - users[0].value)  # keeps its group
    after = grouped_vectors(users, no_biases(), **POSITIVE)
    changed = [group for group in range(len(before)) if (before[group] != after[group]).any()]
    assert changed == [group for group in range(len(before)) if group != own]


def test_groups_are_of_like_size() -> None:
    users = world(np.zeros((NUM_ITEMS, DIM)))
    sizes = np.bincount([group_of(user) for user in users])
    assert sizes[0] == 0
    assert sizes[1:].min() > 0.5 * sizes[1:].max()


def test_a_width_of_none_and_no_ratings_give_vectors_that_say_nothing() -> None:
    users = world(np.zeros((NUM_ITEMS, DIM)))
    biases = fit_biases(users, num_items=NUM_ITEMS, positive_types=(0,))
    assert grouped_vectors(users, biases, positive_types=(0,), dim=0).shape[1:] == (NUM_ITEMS, 0)
    assert (fit_factors([], biases, positive_types=(0,), dim=DIM).vectors == 0.0).all()
