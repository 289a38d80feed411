"""What is pretrained: a Transformer over events whose input and output share item vectors.

An item's vector is a start that stays (what is bought together, `cooccurrence`), what the item has
learned of its own, and what its features and pairs of them have learned. From a user's support the
network says what comes next as one vector of that space, `[E]`; an item's score is the product of
the two. Which other scores are added to it, and which loss it learns by, is the business of those
who use it.

Shapes: T users, S support rows, I items, E width of an item vector, W slots of an item's features,
P pairs of slots.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from raymeta.models.attention import Encoder, Readout
from raymeta.types import Examples

_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77)  # primes below 2^32, as xxHash has them


@dataclass(frozen=True)
class ItemTables:
    """What is known of the items before pretraining, never trained.

    Attributes:
        start: `[I, E]`.
        index: rows of the features' vocabulary, int64 `[I, W]`.
        weight: their weights, `[I, W]`.
        num_features: rows of that vocabulary.
    """

    start: Tensor
    index: Tensor
    weight: Tensor
    num_features: int


class SequenceBody(nn.Module):
    """The encoder and the readout: support rows and their item vectors -> predictions.

    Args: as of `Encoder`.
    """

    def __init__(
        self,
        *,
        item_dim: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        num_event_types: int,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(
            item_dim=item_dim,
            dim=dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_event_types=num_event_types,
            dropout=dropout,
            recompute=recompute,
        )
        self.readout = Readout(dim=dim, num_heads=num_heads, item_dim=item_dim)

    def forward(self, vectors: Tensor, support: Examples, *, each_row: bool = False) -> Tensor:
        """What comes after all rows, `[..., 1, E]`, from item vectors `[..., S, E]`.

        Args:
            each_row: before it, what was predicted of each row by earlier moments: `[..., S+1, E]`.
        """
        age, mask = support["age_days"], support["mask"]
        states = self.encoder(vectors, support["event_type"], support["count"], age, mask)
        after: Tensor = self.readout(states, age, mask, whole=True)
        if not each_row:
            return after
        return torch.cat([self.readout(states, age, mask, whole=False), after], -2)


class NextItems(nn.Module):
    """Item vectors and the body that reads and predicts them.

    Args:
        items: the catalogue.
        body: reads item vectors of the width of `items.start`.
        num_pair_rows: R, rows of a table of hashed pairs of an item's features; 0: none. A pair (a
            brand within a category, say) may share its row with others.
        row_dropout: in training mode, share of support rows that are not shown.
        sparse: gradients of the tables hold only the rows that were read.
    """

    def __init__(
        self,
        items: ItemTables,
        body: SequenceBody,
        *,
        num_pair_rows: int = 0,
        row_dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        num_items, width = items.start.shape
        self.register_buffer("start", items.start, persistent=False)
        self.register_buffer("index", items.index, persistent=False)
        self.register_buffer("weight", items.weight, persistent=False)
        self.register_buffer(
            "pairs", hashed_pairs(items.index, items.weight, num_pair_rows), persistent=False
        )
        self._row_dropout = row_dropout
        self.own = _zeros(num_items, width, sparse=sparse)
        self.features = _zeros(items.num_features, width, sparse=sparse)
        self.pair = _zeros(num_pair_rows, width, sparse=sparse)
        self.body = body
        self.log_scale = nn.Parameter(torch.zeros(()))
        """Log of how much other scores count that are added before the loss."""

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Of all items, `[I, E]`, or of some, `[..., E]` for indices `[...]`."""
        start, index, weight, pairs = (
            self.get_buffer(name) for name in ("start", "index", "weight", "pairs")
        )
        if items is None:
            items = torch.arange(len(start), device=start.device)
        vectors: Tensor = start[items] + self.own(items)
        if index.shape[1]:
            slots = self.features(index[items])
            vectors = vectors + (weight[items].unsqueeze(-2) @ slots).squeeze(-2)
        if pairs.shape[1]:
            vectors = vectors + self.pair(pairs[items]).mean(-2)
        return vectors

    def forward(self, support: Examples) -> Tensor:
        """What each user is about to want, `[T, E]`."""
        mask = support["mask"]
        if self.training and self._row_dropout:
            mask = mask & (torch.rand(mask.shape, device=mask.device) >= self._row_dropout)
        found: Tensor = self.body(self.item_vectors(support["item"]), {**support, "mask": mask})
        return found.squeeze(-2)


def hashed_pairs(index: Tensor, weight: Tensor, num_rows: int) -> Tensor:
    """Rows of the pairs of slots of each item, int64 `[I, P]`; P is 0 without rows.

    A slot that is not used (weight 0) pairs as its vocabulary row 0 does: with all items alike.
    """
    if num_rows == 0 or index.shape[1] < 2:
        return index.new_zeros(len(index), 0)
    used = torch.where(weight != 0, index, 0)
    first, second = (
        list(side) for side in zip(*combinations(range(index.shape[1]), 2), strict=True)
    )
    mixed = used[:, first] * _MULTIPLIERS[0] ^ (used[:, second] + 1) * _MULTIPLIERS[1]
    return ((mixed ^ (mixed >> 15)) & 0x7FFFFFFF) % num_rows


def _zeros(num_rows: int, width: int, *, sparse: bool) -> nn.Embedding:
    return nn.Embedding(num_rows, width, sparse=sparse, _weight=torch.zeros(num_rows, width))
