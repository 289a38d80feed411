"""Embeddings of encoded features: a row a vocabulary row, a vector a field, joined field by field.

The encoding (slots of vocabulary row and weight) is `raymeta.data.features`'.

Shapes: W slots, F fields, V vocabulary rows, E width of an embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class FieldEmbedding:
    """The layout of a table of embeddings `[V, E]` and how records are read from it.

    Args:
        num_rows: V.
        field_of_slot: which field each of the W slots belongs to, ascending.
        width: E.
    """

    def __init__(self, *, num_rows: int, field_of_slot: Sequence[int], width: int) -> None:
        self.num_fields = max(field_of_slot, default=-1) + 1
        self.width = width
        self._num_rows = num_rows
        self._membership_FW = torch.zeros(self.num_fields, len(field_of_slot))
        self._membership_FW[list(field_of_slot), range(len(field_of_slot))] = 1.0

    @property
    def output_width(self) -> int:
        """F * E."""
        return self.num_fields * self.width

    def init(self, generator: torch.Generator) -> Tensor:
        """A table of normal draws with variance 1 / E, so that a field's vector has length 1."""
        return torch.randn(self._num_rows, self.width, generator=generator) / self.width**0.5

    def __call__(self, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """Sums each field's slots and joins the fields: `[..., W]` twice -> `[..., F * E]`."""
        slots = table[index] * weight[..., None]
        fields = slots
        if self.num_fields < self._membership_FW.shape[1]:
            fields = self._membership_FW.to(slots) @ slots
        return fields.flatten(-2)
