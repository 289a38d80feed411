"""What training users did, as matrices: what every baseline is fitted on.

Distinct (user, item) pairs with a positive event; how often and when is left out. The products
that several baselines share are computed once, at first use. Fitting is the baselines' business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raymeta.data.events import History, distinct_items
from raymeta.errors import DataError

MAX_DENSE_ITEMS = 30_000
"""An item-item matrix of this many items takes 3.6 GB in float32; above it is refused."""


@dataclass(frozen=True)
class InteractionMatrix:
    """Positive interactions of training users.

    Attributes:
        users_items: CSR `[U, I]` float32, 1 where the user has a positive event on the item.
    """

    users_items: sparse.csr_array

    @classmethod
    def from_histories(
        cls, histories: Sequence[History], *, num_items: int, positive_types: Sequence[int]
    ) -> "InteractionMatrix":
        """Collects the distinct catalogue items with a positive event, a row a history."""
        rows = [distinct_items(history, positive_types) for history in histories]
        return cls(indicator_rows(rows, num_items))

    @property
    def num_users(self) -> int:
        return int(self.users_items.shape[0])

    @property
    def num_items(self) -> int:
        return int(self.users_items.shape[1])

    @cached_property
    def counts(self) -> NDArray[np.float32]:
        """Users an item, `[I]`."""
        return np.asarray(self.users_items.sum(axis=0), np.float32).ravel()

    @cached_property
    def log_popularity(self) -> NDArray[np.float32]:
        """log(1 + users), `[I]`: the score of a user of whom nothing is known."""
        return np.log1p(self.counts)

    @cached_property
    def co_counts(self) -> NDArray[np.float32]:
        """Users that two items have in common, dense `[I, I]`; its diagonal is `counts`.

        Raises:
            DataError: the catalogue is too large for a dense item-item matrix.
        """
        if self.num_items > MAX_DENSE_ITEMS:
            raise DataError(
                f"{self.num_items} items make an item-item matrix of "
                f"{self.num_items**2 * 4 / 1e9:.0f} GB.",
                remedy="Raise data.min_item_users, or leave the neighbour baselines out.",
            )
        together = (self.users_items.T @ self.users_items).toarray()
        return np.ascontiguousarray(together, np.float32)


def indicator_rows(items: Sequence[NDArray[np.int64]], num_items: int) -> sparse.csr_array:
    """CSR `[len(items), num_items]` float32 with 1 at each row's items (distinct, ascending)."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in items])]).astype(np.int64)
    indices = np.concatenate([np.empty(0, np.int64), *items])
    ones = np.ones(len(indices), np.float32)
    return sparse.csr_array((ones, indices, indptr), shape=(len(items), num_items))


def support_indicator(histories: Sequence[History], num_items: int) -> sparse.csr_array:
    """The distinct catalogue items of each support, whatever the event: CSR `[T, I]` float32."""
    return indicator_rows([np.unique(h.item[h.item >= 0]) for h in histories], num_items)
