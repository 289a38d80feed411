"""What training users bought together, in closed form: the start that meta-learning corrects.

With X the `[U, I]` indicator matrix of training users, X = U s^(1/2) W' its singular value
decomposition, the ridge regression of the items on one another is M = X' (X X' + r 1)^-1 X =
W diag(s / (s + r)) W', the symmetric part of EASE (Steck, "Embarrassingly Shallow Autoencoders for
Sparse Data", WWW 2019, eq. 8, before its division by each item's variance). Item vectors
V = W diag(s / (s + r))^(1/2), cut to the D largest s, give <v_i, v_j> = M_ij in the rank D: one
truncated SVD of X, and no `[I, I]` matrix.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

# below this many users or items a dense decomposition is exact and just as fast
_DENSE_LIMIT = 1500


@dataclass(frozen=True)
class Cooccurrence:
    """The start of `factorization`.

    Attributes:
        item_vectors: `[I, D]` float32.
        item_prior: `[I]` float32, log of the share of training users (smoothed by one) of an item:
            the distribution that answers for a user with no events.
    """

    item_vectors: torch.Tensor
    item_prior: torch.Tensor


def ridge_cooccurrence(
    users_items: sparse.csr_array, *, dim: int, regularisation: float
) -> Cooccurrence:
    """Item vectors and prior of the matrix `[U, I]` (see the module's formula).

    Args:
        dim: D; columns beyond the rank of the matrix are zero.
        regularisation: r, in users: larger trusts rare pairs less.
    """
    spectrum, right = _truncated_svd(users_items, dim)
    shrunk = spectrum / (spectrum + regularisation)
    vectors = np.zeros((users_items.shape[1], dim), np.float32)
    vectors[:, : len(spectrum)] = right * np.sqrt(shrunk)
    counts = np.asarray(users_items.sum(axis=0)).ravel() + 1.0
    prior = np.log(counts / counts.sum())
    return Cooccurrence(torch.from_numpy(vectors), torch.from_numpy(prior.astype(np.float32)))


def _truncated_svd(
    matrix: sparse.csr_array, dim: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The `dim` largest squared singular values `[d]` and right vectors `[I, d]`, signs fixed."""
    if min(matrix.shape) <= max(_DENSE_LIMIT, dim + 1):
        dense = torch.from_numpy(matrix.toarray()).double()
        by_users = dense.shape[0] <= dense.shape[1]
        gram = dense @ dense.T if by_users else dense.T @ dense
        spectrum, vectors = torch.linalg.eigh(gram)
        spectrum, vectors = spectrum.flip(0)[:dim], vectors.flip(1)[:, :dim]
        kept = spectrum > spectrum[0] * 1e-10
        spectrum, vectors = spectrum[kept], vectors[:, kept]
        right = (dense.T @ vectors / spectrum.sqrt() if by_users else vectors).numpy()
        values = spectrum.numpy()
    else:
        start = np.random.default_rng(0).standard_normal(min(matrix.shape))
        _, singular, transposed = svds(matrix.astype(np.float64), k=dim, v0=start)
        order = np.argsort(-singular)
        values, right = singular[order] ** 2, transposed[order].T
    signs = np.sign(right[np.abs(right).argmax(axis=0), np.arange(right.shape[1])])
    return values, right * signs
