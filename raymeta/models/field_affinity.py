"""How a user's rows and an item agree, field by field of the items' features: maker, size, price.

Of a field with values (a category, or the words of a title), with p_v the weight of the user's rows
that have v, P that of all its rows and q_v the share of v in what everybody buys,

    affinity = sum over the item's values v of share_v log((p_v + c) / (q_v P + c)):

how much oftener the user takes v than others do, shrunk by c rows; 0 where nothing is known, and
below 0 for what the user passes over. Of a number: how far the item is from the mean of the rows,
in standard deviations of the catalogue and with its sign turned. Of a search the rows may be those
that answer it, each by how much of the query's words it has. Nothing here is learned. A training
user stays in q, of which it is one in thousands: its own values look a little less its own.

Shapes: S rows, I items, W slots of an item, V rows of the vocabulary, F fields, C candidates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from raymeta.data.features import FeatureVocab
from raymeta.data.schema import FeatureKind
from raymeta.types import Params

ITEM_INDEX, ITEM_WEIGHT = "item_index", "item_weight"

SHRINK, SHRINK_AMONG_HITS = 1.0, 0.3

FOCUS = 3.0
"""How fast a row of the support loses weight with what it lacks of the query's words."""


class FieldAffinity:
    """The fields of one catalogue.

    Args:
        index, weight: the items' features, `[I, W]` (`raymeta.data.features`).
        field_of_slot: of each of the W slots.
        first_row: of each of the F fields, that of an unknown value.
        numeric: which fields are numbers.
        num_rows: V.
        share: of each item in what everybody buys, `[I]`.
    """

    def __init__(
        self,
        index: Tensor,
        weight: Tensor,
        *,
        field_of_slot: Sequence[int],
        first_row: Sequence[int],
        numeric: Sequence[bool],
        num_rows: int,
        share: Tensor,
    ) -> None:
        self._index, self._weight, self._num_rows = index, weight, num_rows
        self.num_fields = len(numeric)
        fields = range(self.num_fields)
        self._slots = [[s for s, f in enumerate(field_of_slot) if f == field] for field in fields]
        self._numeric = tuple(numeric)
        unknown = index.new_tensor([first_row[field] for field in field_of_slot])
        self._known = (index != unknown).to(weight.dtype)
        self._has = self._known * (weight != 0)
        self._share = weight.new_zeros(num_rows).index_add(
            0, index.flatten(), (self._has * share[:, None]).flatten()
        )

    @classmethod
    def of(
        cls, vocab: FeatureVocab, index: Tensor, weight: Tensor, *, share: Tensor
    ) -> "FieldAffinity":
        """As a vocabulary reads the features."""
        return cls(
            index,
            weight,
            field_of_slot=vocab.field_of_slot,
            first_row=vocab.first_row.tolist(),
            numeric=[field.kind == FeatureKind.NUMERIC for field in vocab.fields],
            num_rows=vocab.num_rows,
            share=share,
        )

    def tables(self) -> Params:
        """What an artifact keeps of it; the rest is read off the vocabulary and the prior."""
        return {ITEM_INDEX: self._index, ITEM_WEIGHT: self._weight}

    def among_hits(self, bought: Tensor, candidates: Tensor, lexical: Tensor) -> Tensor:
        """`[C, F]` from the user's rows among a query's hits.

        Args:
            bought: weight of the rows of each hit `[C]`.
            lexical: share of the query that each has, `[C]` in 0..1.
        """
        attended = bought * torch.exp(FOCUS * (lexical - 1.0))
        return self(candidates, attended, candidates, shrink=SHRINK_AMONG_HITS)

    def __call__(
        self, items: Tensor, row_weights: Tensor, candidates: Tensor, *, shrink: float = SHRINK
    ) -> Tensor:
        """`[C, F]`.

        Args:
            items, row_weights: of the rows `[S]`; a padded one weighs 0.
            shrink: c.
        """
        total = row_weights.sum()
        has = self._has[items] * row_weights[:, None]
        profile = has.new_zeros(self._num_rows).index_add(
            0, self._index[items].flatten(), has.flatten()
        )
        lift = torch.log((profile + shrink) / (self._share * total + shrink))
        by_slot = lift[self._index[candidates]] * (self._weight * self._has)[candidates]
        found = []
        for slots, numeric in zip(self._slots, self._numeric, strict=True):
            if numeric:
                number = (self._weight * self._known)[:, slots[0]]
                mean = (row_weights * number[items]).sum() / total.clamp(min=1e-6)
                found.append(-(number[candidates] - mean).abs() * (total > 0))
            else:
                found.append(by_slot[:, slots].sum(-1))
        return torch.stack(found, -1) if found else lift.new_zeros(len(candidates), 0)
