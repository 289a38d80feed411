"""What a search is mixed of against closed forms, and a training user taken out against a refit."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse

from raymeta.data.events import pad_items
from raymeta.models.cooccurrence import Cooccurrence, cooccurrence
from raymeta.models.field_affinity import FieldAffinity
from raymeta.models.neighbours import Neighbours
from raymeta.models.personal_search import SIZES, weights_at
from raymeta.types import Examples

EXPONENT, SHRINK = 0.7, 3.0


def start_of(matrix: np.ndarray, *, item_exponent: float = 0.0) -> Cooccurrence:
    width = matrix.shape[1]
    return cooccurrence(sparse.csr_array(matrix), dim=width, item_exponent=item_exponent)


def one(items: list[int] | np.ndarray, own: np.ndarray | None = None) -> Examples:
    rows = pad_items([np.array(items, np.int64)])
    if own is not None:
        counted = pad_items([own])
        rows |= {"own_item": counted["item"], "own_mask": counted["mask"]}
    return {name: value[0] for name, value in rows.items()}


def scores(
    start: Cooccurrence, support: Examples, *, item_exponent: float = 0.0
) -> NDArray[np.float32]:
    """Of all items, `[I]`."""
    model = Neighbours(start, item_exponent=item_exponent, exponent=EXPONENT, shrink=SHRINK)
    state = model.given(support, support["mask"].float())
    every = torch.arange(len(start.item_vectors))
    return model.score(state, support["item"], every, start.item_vectors, support).numpy()


def random_log(users: int, items: int, share: float) -> np.ndarray:
    return (np.random.default_rng(3).random((users, items)) < share).astype(np.float64)


@pytest.mark.parametrize("item_exponent", [0.0, 0.5])
def test_neighbours_are_shrunk_cosines(item_exponent: float) -> None:
    matrix = random_log(12, 9, 0.5)
    together, users = matrix.T @ matrix, matrix.sum(0)
    similarity = together / np.outer(users + SHRINK, users + SHRINK) ** EXPONENT
    np.fill_diagonal(similarity, 0.0)
    start = start_of(matrix, item_exponent=item_exponent)
    found = scores(start, one([1, 4, 5]), item_exponent=item_exponent)
    np.testing.assert_allclose(found, similarity[[1, 4, 5]].mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("item_exponent", [0.0, 0.5])
def test_a_training_user_is_judged_as_if_never_counted(item_exponent: float) -> None:
    matrix = random_log(14, 9, 0.5)
    matrix[1] = 1.0  # nobody alone has an item
    own = np.flatnonzero(matrix[0])
    with_user = start_of(matrix, item_exponent=item_exponent)
    without = start_of(matrix[1:], item_exponent=item_exponent)
    left_out = scores(with_user, one(own[:2], own), item_exponent=item_exponent)
    refit = scores(without, one(own[:2]), item_exponent=item_exponent)
    np.testing.assert_allclose(left_out, refit, rtol=1e-4, atol=1e-5)


def test_a_log_without_any_pattern_says_nothing_of_its_own_users() -> None:
    """Items are drawn alone, so that what training users bought later cannot be told."""
    matrix = random_log(300, 40, 0.3)
    start = start_of(matrix)

    def gain(*, left_out: bool) -> float:
        gains = []
        for row in matrix:
            own = np.flatnonzero(row)
            half, later = own[::2], own[1::2]
            found = scores(start, one(half, own if left_out else None))
            never = np.setdiff1d(np.arange(40), own)
            gains.append((found[later].mean() - found[never].mean()) / found[never].std())
        return float(np.mean(gains))

    assert gain(left_out=False) > 0.3  # each later item is counted with every item of the support
    assert abs(gain(left_out=True)) < 0.1


def test_weights_are_learned_at_sizes_and_linear_in_the_log_between() -> None:
    table = torch.randn(len(SIZES), 3, generator=torch.Generator().manual_seed(0)).double()
    for place, size in enumerate(SIZES):
        torch.testing.assert_close(
            weights_at(table, torch.tensor(float(size)).double()), table[place]
        )
    between = math.sqrt((1 + SIZES[1]) * (1 + SIZES[2])) - 1
    expected = (table[1] + table[2]) / 2
    torch.testing.assert_close(weights_at(table, torch.tensor(between).double()), expected)
    torch.testing.assert_close(weights_at(table, torch.tensor(1e5).double()), table[-1])


def test_fields_agree_by_how_much_oftener_a_user_takes_a_value() -> None:
    # a maker (unknown, A, B) and a price
    index = torch.tensor([[1, 4], [2, 4], [0, 4], [1, 3]])
    weight = torch.tensor([[1.0, -1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    fields = FieldAffinity(
        index,
        weight,
        field_of_slot=(0, 1),
        first_row=(0, 3),
        numeric=(False, True),
        num_rows=5,
        share=torch.tensor([0.4, 0.3, 0.2, 0.1]),
    )
    every = torch.arange(4)
    found = fields(torch.tensor([0, 0]), torch.tensor([2.0, 0.0]), every)
    maker_a, maker_b = math.log(3 / (0.5 * 2 + 1)), math.log(1 / (0.3 * 2 + 1))
    # an unknown maker is no maker; a price that is not known counts as the mean, 0
    expected = [[maker_a, 0.0], [maker_b, -2.0], [0.0, -1.0], [maker_a, -1.0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    bare = FieldAffinity(
        index[:, :0],
        weight[:, :0],
        field_of_slot=(),
        first_row=(),
        numeric=(),
        num_rows=0,
        share=torch.ones(4),
    )
    assert bare(torch.tensor([0]), torch.tensor([1.0]), every).shape == (4, 0)
    nobody = fields(torch.tensor([0]), torch.tensor([0.0]), every)
    torch.testing.assert_close(nobody, torch.zeros(4, 2))
