"""What biases leave of ratings, as v_j . w_u: item vectors with users integrated out.

    e_uj = v_j . w_u + noise,    w_u ~ N(0, 1),    v_j ~ N(0, 1 / regularisation)

by expectation maximisation (Tipping, Bishop: Probabilistic Principal Component Analysis, 1999,
section 3, with missing data).

A user whose ratings shaped v_j is explained by v_j better than a new user will be. Whoever learns
from training users how far vectors are to be trusted takes those of a user's group: the training
users are divided, and each group has vectors that were fitted on the others only. They are not
turned alike from group to group, which matters to no one who gives all columns the same prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raymeta.data.events import History
from raymeta.data.ratings import RatingBiases, rated
from raymeta.seeding import numpy_generator

NUM_GROUPS = 5
REGULARISATION = 60.0
NUM_ROUNDS = 30

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RatingFactors:
    """The fit.

    Attributes:
        vectors: v, `[I, dim]`; 0 for an item without ratings.
        noise: variance of the noise.
    """

    vectors: Floats
    noise: float


def group_of(history: History) -> int:
    """1 to `NUM_GROUPS`: a function of the user's items, so that whoever has them knows it."""
    return 1 + crc32(history.item.tobytes()) % NUM_GROUPS


def fit_factors(
    histories: Sequence[History],
    biases: RatingBiases,
    *,
    positive_types: Sequence[int],
    dim: int,
    regularisation: float = REGULARISATION,
) -> RatingFactors:
    """Fits v and the noise on the users' ratings less `biases`.

    Args:
        histories: of training users.
        biases: item means and how a user's own bias is found.
        dim: width of v_j.
        regularisation: precision of v_j.
    """
    rated_by, left = _matrices(histories, biases, positive_types)
    vectors = 0.1 * numpy_generator(0, "factors").standard_normal((left.shape[1], dim))
    noise = 0.8
    if dim == 0 or left.nnz == 0:
        return RatingFactors(0.0 * vectors, noise)
    raters = rated_by.T.tocsr()
    eye, total = np.eye(dim), float((left.data**2).sum())
    for _ in range(NUM_ROUNDS):
        squares, sums = _summed(rated_by, _outer(vectors)), left @ vectors
        covariance = np.linalg.inv(eye + squares / noise)
        mean = np.einsum("ude,ue->ud", covariance, sums) / noise
        moment = covariance + _outer(mean)
        second, first = _summed(raters, moment), left.T @ mean
        missed = total - 2.0 * float((sums * mean).sum()) + float((squares * moment).sum())
        noise = missed / left.nnz
        damped = second + regularisation * noise * eye
        vectors = np.linalg.solve(damped, first[..., None])[..., 0]
    return RatingFactors(vectors, noise)


def grouped_vectors(
    histories: Sequence[History],
    biases: RatingBiases,
    *,
    positive_types: Sequence[int],
    dim: int,
    regularisation: float = REGULARISATION,
) -> Floats:
    """v of all users, then for each group that of the users outside it, `[1 + G, I, dim]`."""
    groups = [group_of(history) for history in histories]
    fits = []
    for out in range(1 + NUM_GROUPS):
        others = [h for h, group in zip(histories, groups, strict=True) if group != out]
        fit = fit_factors(
            others, biases, positive_types=positive_types, dim=dim, regularisation=regularisation
        )
        fits.append(fit.vectors)
    return np.stack(fits)


def _matrices(
    histories: Sequence[History], biases: RatingBiases, positive_types: Sequence[int]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """A one where a user rated an item, and what the biases leave of the rating, `[U, I]` each."""
    items, lefts = [np.empty(0, np.int64)], [np.empty(0)]
    for history in histories:
        item, rating = rated([history], positive_types=positive_types)
        items.append(item)
        lefts.append(rating - biases.item_means[item] - biases.of_user(item, rating))
    starts = np.cumsum([len(item) for item in items])
    item, shape = np.concatenate(items), (len(histories), len(biases.counts))
    ones = sparse.csr_array((np.ones(len(item)), item, starts), shape)
    return ones, sparse.csr_array((np.concatenate(lefts), item, starts), shape)


def _outer(rows: Floats) -> Floats:
    """Of each row with itself, `[N, dim, dim]`."""
    return rows[:, :, None] * rows[:, None]


def _summed(which: sparse.csr_array, squares: Floats) -> Floats:
    """Sums `[M, dim, dim]` of those of `squares` `[N, dim, dim]` that `which` `[M, N]` names."""
    sums: Floats = which @ squares.reshape(len(squares), -1)
    return sums.reshape(-1, *squares.shape[1:])
