"""What training users bought together, in closed form: the start that meta-learning corrects.

With X the `[U, I]` indicator matrix of training users and X = U s^(1/2) W' its singular value
decomposition, the ridge regression of the items on one another is M = X' (X X' + r 1)^-1 X =
W diag(s / (s + r)) W', the symmetric part of EASE (Steck, "Embarrassingly Shallow Autoencoders for
Sparse Data", WWW 2019, eq. 8, before its division by each item's variance). W and s do not depend
on r, so that r can be learned, and the first D columns of W are the best of that width.

The columns of X may first be divided by n_j^e, with n_j the users of item j. Then r moves M from
such a regression to item neighbours: r M tends to n_ij / (n_i n_j)^e, which for e = 1/2 is the
cosine. A log of a few hundred users wants that end: it does not bear an inverse.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from raymeta.types import Params

# below this many users or items a dense decomposition is exact and just as fast
_DENSE_LIMIT = 2500


@dataclass(frozen=True)
class Cooccurrence:
    """The start of `factorization`.

    Attributes:
        item_vectors: W, `[I, D]` float32, orthonormal columns, the largest s first.
        spectrum: s, `[R]` float32, R >= D, in users: how much of the log lies along each column,
            then along those that were found and cut off.
        item_prior: `[I]` float32, log of the share of training users (smoothed by one) of an item:
            the distribution that answers for a user with no events.
        log_total: `[]`, log of the counts' sum, so that exp(item_prior + log_total) are counts.
        log_num_items: `[]`, log of I; it stays when items are added after training.
    """

    item_vectors: torch.Tensor
    spectrum: torch.Tensor
    item_prior: torch.Tensor
    log_total: torch.Tensor
    log_num_items: torch.Tensor

    def tables(self) -> Params:
        """The fields by name: `Cooccurrence(**tables)` is the same start."""
        return {
            "item_vectors": self.item_vectors,
            "spectrum": self.spectrum,
            "item_prior": self.item_prior,
            "log_total": self.log_total,
            "log_num_items": self.log_num_items,
        }

    def cut(self, dim: int) -> "Cooccurrence":
        """The same in the first `dim` columns; the spectrum stays whole, since it sets a scale."""
        return replace(self, item_vectors=self.item_vectors[:, :dim].contiguous())

    @property
    def column_spectrum(self) -> torch.Tensor:
        """s of the columns of `item_vectors`, `[D]`."""
        return self.spectrum[: self.item_vectors.shape[1]]


def cooccurrence(
    users_items: sparse.csr_array, *, dim: int, item_exponent: float = 0.0
) -> Cooccurrence:
    """The decomposition and the prior of the matrix `[U, I]` (see the module's formula).

    Args:
        dim: D; less where the matrix has a lower rank.
        item_exponent: e.
    """
    users = torch.from_numpy(np.asarray(users_items.sum(axis=0), np.float64).ravel())
    scale = sparse.diags_array(item_scale(users, item_exponent).numpy())
    spectrum, right = _truncated_svd(sparse.csr_array(users_items @ scale), dim)
    counts = np.asarray(users_items.sum(axis=0)).ravel() + 1.0
    prior = np.log(counts / counts.sum())
    vectors = torch.from_numpy(np.ascontiguousarray(right, np.float32))
    return Cooccurrence(
        vectors,
        torch.from_numpy(spectrum.astype(np.float32)),
        torch.from_numpy(prior.astype(np.float32)),
        torch.tensor(float(np.log(counts.sum()))),
        torch.tensor(float(np.log(len(counts)))),
    )


def item_scale(users: torch.Tensor, exponent: float) -> torch.Tensor:
    """n^-e of items with `users` n, `[I]`; 1 for an item that nobody has."""
    return users.clamp(min=1.0) ** -exponent


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
