"""A causal Transformer over a user's events that cannot look into the visit it predicts.

Events of one visit carry one time, and their order in a row is that of their ids: it says nothing.
So causality is between moments: an event sees those of its own moment and of earlier ones
(`Encoder`), and what is predicted of a moment is read from earlier moments only (`Readout`). Time
enters as differences between events alone, never as an age against the last one, so that what
comes later changes nothing that was read before.

SASRec (Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018) with the relative time
of HSTU (Zhai et al.: Actions Speak Louder than Words, ICML 2024, section 3.2) in place of
positions. Differs from both: causal between moments and not between rows, pre-norm residual blocks
with softmax and a GELU network, and a readout of its own, whose first prediction is of a user
without events.

Everything is einsum, softmax and layer normalisation, which have second derivatives under `vmap`;
the fused attention kernels have none.

Shapes: `...` a batch of users or nothing (inside `vmap`), S rows, H heads, D width, E width of an
item vector.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NUM_GAPS = 20
"""Time differences are told apart by doublings of an hour: the last bucket begins at 30 years."""

_HIDDEN = -1e9  # finite, so that a row that sees nothing has a gradient


def gap_bucket(gap_days: Tensor) -> Tensor:
    """floor(log2(1 + hours)), int64, at most `NUM_GAPS` - 1; negative gaps count as 0."""
    doublings = torch.log2(1.0 + 24.0 * gap_days.clamp(min=0.0)).floor()
    return doublings.clamp(max=NUM_GAPS - 1).long()


def sees_moments(age_days: Tensor, mask: Tensor) -> Tensor:
    """Whether row i sees row j, bool `[..., S, S]`: j is a real row, no later than i.

    Args:
        age_days: `[..., S]`, against any moment that all rows share.
        mask: `[..., S]`; a padded row sees itself alone.
    """
    size = age_days.shape[-1]
    no_later = age_days[..., None, :] >= age_days[..., :, None]
    itself = torch.eye(size, dtype=torch.bool, device=mask.device)
    return (no_later & mask[..., None, :]) | itself


class Attention(nn.Module):
    """Multi-head attention of given queries over given rows, biased by the time between them.

    Args:
        dim: D, a multiple of `num_heads`.
        num_heads: H.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim={dim} is not a multiple of num_heads={num_heads}.")
        self.num_heads = num_heads
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gap = nn.Parameter(torch.zeros(NUM_GAPS, num_heads))

    def forward(self, queries: Tensor, rows: Tensor, sees: Tensor, gap: Tensor) -> Tensor:
        """`[..., Q, D]` from queries `[..., Q, D]`, rows `[..., S, D]`, sees and gap `[..., Q, S]`.

        `gap` are buckets (`gap_bucket`).
        """
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1))
            for layer, x in ((self.query, queries), (self.key, rows), (self.value, rows))
        )
        logits = torch.einsum("...qhd,...shd->...hqs", q, k) / math.sqrt(q.shape[-1])
        logits = logits + self.gap[gap].movedim(-1, -3)
        weights = torch.where(sees.unsqueeze(-3), logits, _HIDDEN).softmax(-1)
        mixed: Tensor = self.output(torch.einsum("...hqs,...shd->...qhd", weights, v).flatten(-2))
        return mixed


class FeedForward(nn.Module):
    """Linear, GELU, linear; four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(nn.functional.gelu(self.up(x)))
        return out


class Block(nn.Module):
    """Attention, then a network, each on normalised input and added to it (pre-norm)."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.network = Attention(dim, num_heads), FeedForward(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sees: Tensor, gap: Tensor) -> Tensor:
        rows = self.before_attention(x)
        x = x + self.dropout(self.attention(rows, rows, sees, gap))
        out: Tensor = x + self.dropout(self.network(self.before_network(x)))
        return out


class Encoder(nn.Module):
    """States of a user's rows, each of what happened up to its moment.

    Args:
        item_dim: E.
        dim: D.
        num_layers: blocks.
        num_heads: H.
        num_event_types: types that a row can have.
        dropout: share of activations dropped in training mode.
        recompute: drop a block's activations and compute them again in the backward pass: memory
            of one block instead of all, for a third more work.
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
        self.enter = nn.Linear(item_dim, dim)
        self.event_type = nn.Parameter(0.02 * torch.randn(num_event_types, dim))
        self.repeats = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(num_layers))
        self.normalise = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self._recompute = recompute

    def forward(
        self, items: Tensor, event_type: Tensor, count: Tensor, age_days: Tensor, mask: Tensor
    ) -> Tensor:
        """`[..., S, D]` from item vectors `[..., S, E]` and fields of a support `[..., S]`."""
        sees = sees_moments(age_days, mask)
        gap = gap_bucket(age_days[..., None, :] - age_days[..., :, None])
        repeats = torch.log(count.clamp(min=1.0))[..., None] * self.repeats
        x = self.dropout(self.enter(items) + self.event_type[event_type] + repeats)
        for block in self.blocks:
            if self._recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, sees, gap, use_reentrant=False)
            else:
                x = block(x, sees, gap)
        out: Tensor = self.normalise(x)
        return out


class Readout(nn.Module):
    """What a user is about to want, as a vector of the items' space: before each row, and now.

    A learned question is asked of the states; a state of nobody's, learned as well, is always among
    them. The last layer starts at 0.

    Args:
        dim: D.
        num_heads: H.
        item_dim: E.
    """

    def __init__(self, *, dim: int, num_heads: int, item_dim: int) -> None:
        super().__init__()
        self.question = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.nobody = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.attention = Attention(dim, num_heads)
        self.normalise, self.network = nn.LayerNorm(dim), FeedForward(dim)
        self.leave = nn.Linear(dim, item_dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, states: Tensor, age_days: Tensor, mask: Tensor, *, whole: bool) -> Tensor:
        """Predictions from states `[..., S, D]`.

        Args:
            whole: one for the future, of all rows, `[..., 1, E]`; else one for each row, of the
                moments before its own, `[..., S, E]`. Ages count from the last row that is seen.
        """
        if whole:
            sees = mask[..., None, :]
        else:
            sees = (age_days[..., None, :] > age_days[..., :, None]) & mask[..., None, :]
        age = age_days[..., None, :].expand(sees.shape)
        last = torch.where(sees, age, torch.inf).amin(-1, keepdim=True)
        gap = gap_bucket(torch.where(sees, age - last, 0.0))
        nobody = self.nobody.expand(*states.shape[:-2], 1, -1)
        rows = torch.cat([nobody, states], -2)
        sees = torch.cat([torch.ones_like(sees[..., :1]), sees], -1)
        gap = torch.cat([torch.zeros_like(gap[..., :1]), gap], -1)
        questions = self.question.expand(*sees.shape[:-1], -1)
        x = questions + self.attention(questions, rows, sees, gap)
        out: Tensor = self.leave(x + self.network(self.normalise(x)))
        return out
