"""EASE: the item-item weights that best rebuild the interaction matrix, in closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from raymeta.data.events import History
from raymeta.data.interactions import (
    MAX_DENSE_ITEMS,
    InteractionMatrix,
    support_indicator,
)
from raymeta.errors import DataError

Predict = Callable[[sparse.csr_array], NDArray[np.float32]]


class EaseSolver:
    """Solves EASE for one training set and many regularisations.

    With fewer users than items, P = (X'X + r)^-1 = (1 - V' (s + r)^-1 V) / r where X X' = U s U'
    and V = U'X: one decomposition `[U, U]` serves every r, and no `[I, I]` matrix is made.
    Otherwise P is the inverse itself, by Cholesky.
    """

    def __init__(self, train: InteractionMatrix) -> None:
        smaller = min(train.num_users, train.num_items)
        if smaller > MAX_DENSE_ITEMS:
            raise DataError(
                f"EASE needs a dense matrix of {smaller} x {smaller}.",
                remedy="Raise data.min_item_users, or leave EASE out.",
            )
        self.train = train
        self.by_users = train.num_users < train.num_items
        if self.by_users:
            matrix = train.users_items.astype(np.float64)
            spectrum, vectors = np.linalg.eigh((matrix @ matrix.T).toarray())
            self._spectrum = spectrum.clip(min=0.0)
            self._rotated: NDArray[np.float32] = np.ascontiguousarray(
                (train.users_items.T @ vectors.astype(np.float32)).T
            )

    def predictor(self, regularisation: float) -> Predict:
        """The function from support indicators `[T, I]` to scores `[T, I]`."""
        if self.by_users:
            return self._predict_by_users(regularisation)
        return self._predict_by_items(regularisation)

    def _predict_by_users(self, regularisation: float) -> Predict:
        damping = (1.0 / (self._spectrum + regularisation)).astype(np.float32)
        rotated = self._rotated
        # P's diagonal times r; B = 1 - P / diag(P), so that r cancels
        diagonal = 1.0 - np.einsum("u,ui,ui->i", damping, rotated, rotated)

        def predict(support: sparse.csr_array) -> NDArray[np.float32]:
            explained = ((support @ rotated.T) * damping) @ rotated
            dense = support.toarray()
            scores: NDArray[np.float32] = dense - (dense - explained) / diagonal
            return scores

        return predict

    def _predict_by_items(self, regularisation: float) -> Predict:
        gram = torch.from_numpy(self.train.co_counts.copy())
        gram.diagonal().add_(regularisation)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = (inverse / -inverse.diagonal()).fill_diagonal_(0.0).numpy()

        def predict(support: sparse.csr_array) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = support @ weights
            return scores

        return predict


class Ease:
    """score(u, j) = sum over support items i of B_ij, with B = -P / diag(P) off the diagonal.

    Args:
        solver: the training set, decomposed.
        regularisation: the L2 penalty on B, on the scale of user counts.
    """

    def __init__(self, solver: EaseSolver, *, regularisation: float) -> None:
        self._predict = solver.predictor(regularisation)
        self._log_popularity = solver.train.log_popularity

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """`[T, I]`; log-popularity where the support is empty."""
        support = support_indicator(histories, len(self._log_popularity))
        scores = self._predict(support)
        scores[np.diff(support.indptr) == 0] = self._log_popularity
        return scores
