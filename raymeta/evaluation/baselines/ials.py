"""Implicit ALS with fold-in: matrix factorisation, a new user's vector solved from the support.

Hu, Koren and Volinsky 2008, with the regularisation by frequency of Rendle et al., "Revisiting the
Performance of iALS on Item Recommendation Benchmarks", RecSys 2022.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix, support_indicator
from raymeta.seeding import torch_generator

GATHERED_PER_CHUNK = 4_000_000
"""Factors gathered at once while solving, in numbers (16 MB in float32)."""


class ImplicitAls:
    """score(u, j) = <w_u, h_j>, where w and h minimise, by alternating exact solves,

        sum over pairs (1 - <w_u, h_i>)^2 + unobserved * sum over all (u, i) <w_u, h_i>^2
        + regularisation * (sum_u f_u |w_u|^2 + sum_i f_i |h_i|^2),

    with f = number of pairs of the row + unobserved * length of the row. Fold-in is the user's
    half of one iteration.

    Args:
        train: what to fit on.
        dim: width of the factors.
        unobserved: weight of a pair that did not occur.
        regularisation: as above.
        num_iterations: alternations.
        seed: of the start, normal with a standard deviation of 0.1 / sqrt(dim).
    """

    def __init__(
        self,
        train: InteractionMatrix,
        *,
        dim: int,
        unobserved: float,
        regularisation: float,
        num_iterations: int = 8,
        seed: int = 0,
    ) -> None:
        self._unobserved = unobserved
        self._regularisation = regularisation
        self._log_popularity = train.log_popularity
        by_item = train.users_items.T.tocsr()
        start = torch.randn(train.num_items, dim, generator=torch_generator(seed, "ials"))
        self._items = start * (0.1 / dim**0.5)
        for _ in range(num_iterations):
            users = self._solve(train.users_items, self._items)
            self._items = self._solve(by_item, users)

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`; log-popularity where the support is empty."""
        support = support_indicator(histories, len(self._log_popularity))
        scores = (self._solve(support, self._items) @ self._items.T).numpy()
        scores[np.diff(support.indptr) == 0] = self._log_popularity
        return scores

    def _solve(self, pairs: sparse.csr_array, other: Tensor) -> Tensor:
        """The best factor `[R, D]` of every row of `pairs` `[R, C]`, given those of the columns."""
        gram = self._unobserved * (other.T @ other)
        lengths = np.diff(pairs.indptr)
        penalty = self._regularisation * (lengths + self._unobserved * pairs.shape[1])
        solved = torch.zeros(pairs.shape[0], other.shape[1])
        for rows, columns, mask in _padded_chunks(pairs, width=other.shape[1]):
            gathered = other[columns] * mask.unsqueeze(-1)
            normal = gram + gathered.mT @ gathered
            normal.diagonal(dim1=1, dim2=2).add_(torch.from_numpy(penalty[rows]).float()[:, None])
            factor = torch.linalg.cholesky(normal)
            solved[rows] = torch.cholesky_solve(gathered.sum(1).unsqueeze(-1), factor).squeeze(-1)
        return solved


def _padded_chunks(
    pairs: sparse.csr_array, *, width: int
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Rows of similar length together: (rows `[R]`, columns `[R, L]`, mask `[R, L]`)."""
    lengths = np.diff(pairs.indptr)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    end = len(order)
    while end > 0:
        longest = int(lengths[order[end - 1]])
        begin = max(0, end - max(1, GATHERED_PER_CHUNK // (max(longest, width) * width)))
        rows = order[begin:end]
        inside = np.arange(longest) < lengths[rows][:, None]
        positions = np.where(inside, pairs.indptr[rows][:, None] + np.arange(longest), 0)
        columns = pairs.indices[positions].astype(np.int64)
        yield rows, torch.from_numpy(columns), torch.from_numpy(inside.astype(np.float32))
        end = begin
