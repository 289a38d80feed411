"""Losses of a ranked list: what the outer loop minimises where the measure is nDCG at the top.

Written for one task and any number of items; `torch.func.vmap` lifts them.
"""

import math

import torch
from torch import Tensor

CUTOFF = 10
"""Length of the list that counts."""

CANDIDATES = 100
"""Only so many items with the highest scores take part: the others are far from the list."""

TEMPERATURE = 0.2
"""Softness of a rank, in standard deviations of the candidates' scores."""


def soft_ndcg_loss(scores: Tensor, relevant: Tensor, hidden: Tensor) -> Tensor:
    """1 - nDCG@10 with soft ranks, a scalar; scale and shift of the scores do not matter.

        rank_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / (t std(s)))
        DCG = sum_i relevant_i sigmoid(cutoff + 1/2 - rank_i) / log2(1 + rank_i)

    ApproxNDCG of Qin, Liu, Li, "A general approximation framework for direct optimization of
    information retrieval measures", Information Retrieval 13, 2010, eq. 14 and 23; differs: only
    the best `CANDIDATES` take part, and the temperature follows the spread of their scores.

    Args:
        scores: `[I]`.
        relevant: `[I]`, 1 where the item is relevant, else 0.
        hidden: `[I]`, 1 where the item is not ranked (it is in the support), else 0.

    Returns:
        1 where nothing is relevant.
    """
    shown = torch.where(hidden > 0, -torch.inf, scores.detach())
    best = shown.topk(min(CANDIDATES, scores.shape[-1])).indices
    top, part = scores[best], 1.0 - hidden[best]  # hidden ones come last, and have no part
    softness = TEMPERATURE * _spread(top, part).clamp(min=1e-6)
    above = torch.sigmoid((top[None, :] - top[:, None]) / softness) * part[None, :]
    rank = 0.5 + above.sum(1)  # an item is half above itself, which makes up for the missing half
    gain = relevant[best] * part
    dcg = (gain * torch.sigmoid(CUTOFF + 0.5 - rank) / torch.log2(1.0 + rank)).sum()
    discounts = scores.new_tensor([1.0 / math.log2(2.0 + place) for place in range(CUTOFF)])
    ideal = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
    possible = (relevant * (1.0 - hidden)).sum().clamp(max=CUTOFF).long()
    ideal_dcg = ideal.gather(0, possible[None])[0]
    return 1.0 - dcg / ideal_dcg.clamp(min=1e-6)


def sampled_softmax_loss(
    right: Tensor,
    right_log_q: Tensor,
    mask: Tensor,
    others: Tensor,
    others_log_q: Tensor,
    hidden: Tensor,
) -> Tensor:
    """Softmax over a sample of the catalogue in place of all of it; a scalar for one task.

        mean_q -log exp(s_q - log Q_q) / (exp(s_q - log Q_q) + sum_k exp(s_k - log Q_k))

    with Q_j how often j is expected among the K that are drawn: Bengio, Senecal, "Adaptive
    importance sampling to accelerate training of a neural probabilistic language model", IEEE TNN
    2008; the correction as in Yi et al., "Sampling-bias-corrected neural modeling for large corpus
    item recommendations", RecSys 2019, eq. 3-4. As K grows it becomes the softmax over all items
    that are not hidden.

    Args:
        right, right_log_q, mask: `[N]` scores s_q of the later items, log Q_q, and which count.
        others, others_log_q: `[K]` scores of what was drawn, and log Q_k.
        hidden: `[K]`, where an item that was drawn is later or in the support itself.
    """
    told_from = torch.where(hidden, -torch.inf, others - others_log_q)
    shown = right - right_log_q
    beside = told_from.logsumexp(-1, keepdim=True).expand_as(shown)
    losses = torch.logaddexp(shown, beside) - shown
    return torch.where(mask, losses, 0.0).sum() / mask.sum().clamp(min=1)


def indicator(items: Tensor, mask: Tensor, like: Tensor) -> Tensor:
    """`[I]` as `like`, 1 at the items where `mask`, else 0; `[N]` indices may repeat."""
    counts = torch.zeros_like(like).index_add(0, items, mask.to(like.dtype))
    return counts.clamp(max=1.0)


def _spread(values: Tensor, weights: Tensor) -> Tensor:
    """Standard deviation of `values` where `weights` is 1 and not 0; 0 of fewer than two."""
    count = weights.sum()
    centred = (values - (values * weights).sum() / count.clamp(min=1.0)) * weights
    variance = centred.square().sum() / (count - 1.0).clamp(min=1.0)
    return variance.clamp(min=1e-12).sqrt()
