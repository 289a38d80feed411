"""score(user, item j) = mean over support rows i of w_i n_ij ((n_i + k) (n_j + k))^-a, i != j.

Item neighbours by a shrunk cosine, with n_ij the training users of both items and n_i those of one,
in the vectors that the ridge of `factorization` has: n_ij = (n_i n_j)^e W_i diag(s) W_j', so that a
user's neighbours are one vector, and a new item has neighbours as soon as it has a vector. With the
columns that are served, n_ij is what is left of it in those. An a of .5 and a k of 0 are the
cosine; k damps items of few users, whose cosines are large by chance.

A training user is in the n_ij that it would be judged by, and is taken out of them:
n_ij - x_i x_j and n_i - x_i with x its row of the log, exact where W spans the log.

Shapes: S support rows, I items, C candidates, D width of an item vector.
"""

from torch import Tensor

from raymeta.models.cooccurrence import Cooccurrence
from raymeta.models.ranking_losses import indicator
from raymeta.types import Examples, Params

CONTEXT, DAMPED = "neighbour_context", "neighbour_damped"


class Neighbours:
    """Neighbours of a user's items.

    Args:
        start: item vectors `[I, D]`, spectrum and prior.
        item_exponent: e, what `start` was made with.
        exponent, shrink: a and k.
    """

    def __init__(
        self, start: Cooccurrence, *, item_exponent: float, exponent: float, shrink: float
    ) -> None:
        self._start, self._item_exponent = start, item_exponent
        self._exponent, self._shrink = exponent, shrink
        self._users = ((start.item_prior + start.log_total).exp() - 1.0).clamp(min=0.0)
        self._scale = self._users.clamp(min=1.0) ** item_exponent
        along = start.item_vectors.square() @ start.column_spectrum
        self._itself = self._scale.square() * along  # n_ii

    def of_columns(self, start: Cooccurrence) -> "Neighbours":
        """The same in the columns of another start of this log."""
        return Neighbours(
            start,
            item_exponent=self._item_exponent,
            exponent=self._exponent,
            shrink=self._shrink,
        )

    def given(self, support: Examples, weights: Tensor) -> Params:
        """The part of a user's state: a vector `[D]`, and what its rows count for `[S]`.

        Args:
            weights: w `[S]`, 0 where a row is padded.
        """
        items = support["item"]
        damped = weights * self._damping(support)[items] / weights.sum().clamp(min=1.0)
        summed = (damped * self._scale[items]) @ self._start.item_vectors[items]
        return {CONTEXT: summed * self._start.column_spectrum, DAMPED: damped}

    def score(
        self,
        state: Params,
        row_items: Tensor,
        candidates: Tensor,
        vectors: Tensor,
        support: Examples | None,
    ) -> Tensor:
        """`[C]` for candidates and their item vectors `[C, D]`; with its support, a training user
        is left out of the counts."""
        shared = self._scale[candidates] * (vectors @ state[CONTEXT])
        of_itself = shared.new_zeros(len(self._users)).index_add(0, row_items, state[DAMPED])
        shared = shared - (of_itself * self._itself)[candidates]
        if support is not None and "own_item" in support:
            others = state[DAMPED].sum() - of_itself
            shared = shared - (self._own(support) * others)[candidates]
        return shared * self._damping(support)[candidates]

    def _damping(self, support: Examples | None) -> Tensor:
        """(n + k)^-a of all items, `[I]`."""
        users = self._users
        if support is not None and "own_item" in support:
            users = users - self._own(support)
        return (users.clamp(min=0.0) + self._shrink) ** -self._exponent

    def _own(self, support: Examples) -> Tensor:
        """x, `[I]`."""
        return indicator(support["own_item"], support["own_mask"], self._users)
