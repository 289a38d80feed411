"""How much oftener an item is had at a place than anywhere: the prior of somebody who shops there.

Each training user counts with each of its items once, at the place of the last event on it. With
M_pj users so counted, N_p = sum_j M_pj and s_j the share of item j in all counts,

    L_pj = log (M_pj + c s_j) / ((N_p + c) s_j)

is the log of an item's share at the place to its share anywhere, with a Dirichlet prior of c counts
(Zhai and Lafferty, "A study of smoothing methods for language models", SIGIR 2001, section 3): 0
where nothing is known. A user's own is the mean of L over the rows of the support whose place is
known.

A training user is in the counts it is judged with, so its own are taken out of M, exactly; N and s
stay as they are, of which it is a small part.

Shapes: P places, I items, S support rows, D columns that are served.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymeta.types import Examples, Params

PRIOR_USERS = 10.0
"""c, in users with as many items as users have on average."""

Shape = tuple[int, int]

VECTORS, ITEM_VECTORS = "place_vectors", "place_item_vectors"


@dataclass(frozen=True)
class PlacePrior:
    """L as a product of vectors, and in training what it was counted from.

    Attributes:
        vectors: `[P, D]`, or L itself where nothing was cut off.
        item_vectors: `[I, D]`; None where `vectors` is L.
        counts: M `[P, I]`, only in training.
        prior: c s_j `[I]`, only in training.
    """

    vectors: Tensor
    item_vectors: Tensor | None
    counts: Tensor | None = None
    prior: Tensor | None = None

    @classmethod
    def count(
        cls,
        places: Sequence[NDArray[np.int64]],
        items: Sequence[NDArray[np.int64]],
        shape: Shape,
        *,
        prior_users: float = PRIOR_USERS,
    ) -> "PlacePrior":
        """Counts the items of training users, a list of items and of their places for each; a
        place of -1 does not count.

        Args:
            shape: P and I.
            prior_users: c, in users with as many items as users have on average.
        """
        num_places, num_items = shape
        place, item = np.concatenate(places), np.concatenate(items)
        cell = (place * num_items + item)[place >= 0]
        counts = np.bincount(cell, minlength=num_places * num_items).reshape(shape).astype(float)
        share = (counts.sum(0) + 1.0) / (counts.sum() + num_items)  # none is 0
        mass = prior_users * counts.sum() / max(1, len(places))
        ratio = (counts + mass * share) / ((counts.sum(1, keepdims=True) + mass) * share)
        vectors, seen, prior = (
            torch.from_numpy(array).float() for array in (np.log(ratio), counts, mass * share)
        )
        return cls(vectors, None, seen, prior)

    @classmethod
    def restore(cls, tables: Params) -> "PlacePrior | None":
        """What `tables` gave; None where it gave nothing."""
        if VECTORS not in tables:
            return None
        return cls(tables[VECTORS], tables[ITEM_VECTORS])

    def served(self, dim: int) -> "PlacePrior":
        """The nearest product of `dim` columns, squared errors weighted by how much is had at the
        place and of the item."""
        assert self.counts is not None
        weight_P = self.counts.sum(1).clamp(min=1.0).sqrt().double()
        weight_I = self.counts.sum(0).clamp(min=1.0).sqrt().double()
        weighted = weight_P[:, None] * self.vectors.double() * weight_I
        left, size, right = torch.linalg.svd(weighted, full_matrices=False)
        left, root, right = left[:, :dim], size[:dim].sqrt(), right[:dim]
        vectors = left * root / weight_P[:, None]
        item_vectors = (right * root[:, None] / weight_I).T
        return PlacePrior(vectors.float().contiguous(), item_vectors.float().contiguous())

    def tables(self) -> Params:
        """What is kept beside a model, once it is `served`."""
        if self.item_vectors is None:
            return {}
        return {VECTORS: self.vectors, ITEM_VECTORS: self.item_vectors}

    def of_support(self, support: Examples) -> Tensor:
        """The mean vector of the rows' places, `[D]`; 0 where none is known."""
        return self._share(support) @ self.vectors

    def scores(self, own: Tensor, items: Tensor | None = None) -> Tensor:
        """What `of_support` says of all items `[I]`, or of some `[C]`."""
        if self.item_vectors is None:
            return own if items is None else own[items]
        return (self.item_vectors if items is None else self.item_vectors[items]) @ own

    def correction(self, support: Examples) -> Tensor:
        """What scores change by with a training user's own counts taken out, `[I]`."""
        assert self.counts is not None
        assert self.prior is not None
        place, item = support["own_place"].clamp(min=0), support["own_item"]
        counted = support["own_mask"] & (support["own_place"] >= 0)
        with_user = self.counts[place, item]
        without = (with_user - 1.0).clamp(min=0.0)
        prior = self.prior[item]
        change = ((without + prior) / (with_user + prior)).log()
        change = torch.where(counted, change * self._share(support)[place], 0.0)
        return change.new_zeros(self.counts.shape[1]).index_add(0, item, change)

    def _share(self, support: Examples) -> Tensor:
        """The share of each place among the rows whose place is known, `[P]`."""
        place = support["place"]
        known = (support["mask"] & (place >= 0)).to(self.vectors.dtype)
        rows = known / known.sum().clamp(min=1.0)
        return rows.new_zeros(len(self.vectors)).index_add(0, place.clamp(min=0), rows)
