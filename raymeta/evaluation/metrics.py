"""Ranking metrics of a batch of users over a whole catalogue, and what chance would reach.

Scores come as `[T, I]`; items that may not be recommended hold -inf. Equal scores are ordered by
item index, so that a result never depends on a sorting routine. Which items are masked, and what
counts as relevant, is the protocol's business. Everything that is returned is float64 or int64.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CUTOFF = 10
"""Rank at which nDCG, hit rate and coverage stop."""

RECALL_CUTOFF = 20
"""Rank at which recall stops."""

METRICS = ("ndcg_at_10", "recall_at_20", "mrr", "hit_rate_at_10")
"""The metrics of one user, in the order in which they are reported."""


def top_k(scores_TI: Tensor, k: int) -> Tensor:
    """The `k` best items of each user, best first: int64 `[T, min(k, I)]`, -1 for masked items.

    Raises:
        ValueError: a score is NaN.
    """
    if torch.isnan(scores_TI).any():
        raise ValueError("scores hold NaN; a ranking needs comparable numbers")
    num_items = scores_TI.shape[1]
    k = min(k, num_items)
    values, items = torch.topk(scores_TI, min(k + 1, num_items))
    if num_items > k:
        # `topk` keeps any one of the items that tie at the cutoff; those rows are sorted in full
        tied = (values[:, k - 1] == values[:, k]).nonzero().flatten()
        values, items = values[:, :k], items[:, :k].clone()
        if len(tied):
            items[tied] = _stable_order(scores_TI[tied])[:, :k]
    by_index = items.sort(dim=1).values
    ranked = by_index.gather(1, _stable_order(scores_TI.gather(1, by_index)))
    return ranked.masked_fill(scores_TI.gather(1, ranked) == -torch.inf, -1)


def hits(ranked_TK: Tensor, relevant_TI: Tensor) -> Tensor:
    """Which of the ranked items are relevant: bool `[T, K]`; -1 is never a hit."""
    return relevant_TI.gather(1, ranked_TK.clamp(min=0)) & (ranked_TK >= 0)


def ndcg(hits_TK: Tensor, num_relevant_T: Tensor, *, k: int = CUTOFF) -> Tensor:
    """Normalised discounted cumulative gain with binary relevance, `[T]` in 0..1.

    DCG@k = sum over hits of 1 / log2(1 + rank); the ideal has min(k, relevant) hits at the top
    (Järvelin and Kekäläinen 2002). Every user must have something relevant.
    """
    discounts = _discounts(k)
    gained = (hits_TK[:, :k].double() * discounts[: hits_TK.shape[1]]).sum(1)
    return gained / discounts.cumsum(0)[num_relevant_T.clamp(max=k) - 1]


def recall(hits_TK: Tensor, num_relevant_T: Tensor, *, k: int = RECALL_CUTOFF) -> Tensor:
    """Share of a user's relevant items among the first `k`, `[T]`.

    The denominator is the number of relevant items (Manning, Raghavan and Schütze 2008, section
    8.3), not min(k, relevant): users with more than `k` of them cannot reach 1, and the ceiling
    line of a report says how far they could get.
    """
    return hits_TK[:, :k].sum(1).double() / num_relevant_T


def hit_rate(hits_TK: Tensor, *, k: int = CUTOFF) -> Tensor:
    """1 for users with a relevant item among the first `k`, else 0, `[T]`."""
    return hits_TK[:, :k].any(1).double()


def reciprocal_rank(scores_TI: Tensor, relevant_TI: Tensor) -> Tensor:
    """1 / rank of the first relevant item over the whole catalogue, `[T]`."""
    best = scores_TI.masked_fill(~relevant_TI, -torch.inf).max(1, keepdim=True).values
    index = torch.arange(scores_TI.shape[1])
    ties = scores_TI == best
    first = torch.where(ties & relevant_TI, index, scores_TI.shape[1]).min(1, keepdim=True).values
    ahead = (scores_TI > best) | (ties & (index < first))
    return 1.0 / (1 + ahead.sum(1)).double()


def user_metrics(scores_TI: Tensor, relevant_TI: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """All of `METRICS`, each `[T]`, and the first ten items `[T, 10]` for coverage."""
    ranked = top_k(scores_TI, max(CUTOFF, RECALL_CUTOFF))
    hit_TK = hits(ranked, relevant_TI)
    num_relevant = relevant_TI.sum(1)
    values = {
        "ndcg_at_10": ndcg(hit_TK, num_relevant),
        "recall_at_20": recall(hit_TK, num_relevant),
        "mrr": reciprocal_rank(scores_TI, relevant_TI),
        "hit_rate_at_10": hit_rate(hit_TK),
    }
    return values, ranked[:, :CUTOFF]


def coverage(ranked_TK: Tensor, num_items: int) -> float:
    """Share of the catalogue that is among the ranked items of at least one user."""
    return len(torch.unique(ranked_TK[ranked_TK >= 0])) / num_items


def chance(
    num_relevant_T: NDArray[np.int64], num_candidates_T: NDArray[np.int64]
) -> Mapping[str, NDArray[np.float64]]:
    """The expectation of each metric under a uniformly random ranking, `[T]` each.

    Args:
        num_relevant_T: relevant items of each user, at least 1.
        num_candidates_T: items that are ranked for each user (the catalogue less what is masked).
    """
    share = num_relevant_T / num_candidates_T
    ideal = np.cumsum(_discounts(CUTOFF).numpy())
    depth = np.minimum(CUTOFF, num_candidates_T) - 1
    none_in = _none_relevant(num_relevant_T, num_candidates_T)
    rank = np.arange(1, none_in.shape[1])
    first_at = none_in[:, :-1] - none_in[:, 1:]
    return {
        "ndcg_at_10": share * ideal[depth] / ideal[np.minimum(CUTOFF, num_relevant_T) - 1],
        "recall_at_20": np.minimum(RECALL_CUTOFF, num_candidates_T) / num_candidates_T,
        "mrr": (first_at / rank).sum(1),
        "hit_rate_at_10": 1.0 - none_in[:, min(CUTOFF, none_in.shape[1] - 1)],
    }


def ceiling(num_relevant_T: NDArray[np.int64]) -> Mapping[str, NDArray[np.float64]]:
    """What a ranking with all relevant items at the top reaches, `[T]` each."""
    ones = np.ones(len(num_relevant_T))
    within = np.minimum(RECALL_CUTOFF, num_relevant_T) / num_relevant_T
    return {"ndcg_at_10": ones, "recall_at_20": within, "mrr": ones, "hit_rate_at_10": ones}


def _stable_order(scores_TI: Tensor) -> Tensor:
    return torch.sort(scores_TI, dim=1, descending=True, stable=True).indices


def _discounts(k: int) -> Tensor:
    return 1.0 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))


def _none_relevant(
    num_relevant_T: NDArray[np.int64], num_candidates_T: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability `[T, N + 1]` that none of the first 0..N ranks of a random order is relevant."""
    drawn = np.arange(int(num_candidates_T.max()))
    left = (num_candidates_T[:, None] - drawn).clip(min=1)
    misses = (num_candidates_T[:, None] - num_relevant_T[:, None] - drawn).clip(min=0)
    survival: NDArray[np.float64] = np.cumprod(misses / left, axis=1)
    return np.concatenate([np.ones((len(survival), 1)), survival], axis=1)


def ndcg_of_list(hits: Sequence[bool], num_relevant: int) -> float:
    """nDCG@10 of one list as it was shown: binary gains, ideal cut at min(10, num_relevant).

    Args:
        hits: whether each shown item is relevant, best first.
        num_relevant: relevant items in all, shown or not; with none the value is 0.
    """
    discounts = [1.0 / math.log2(place + 2.0) for place in range(CUTOFF)]
    ideal = sum(discounts[:num_relevant])
    gained = sum(d for d, hit in zip(discounts, hits, strict=False) if hit)
    return gained / ideal if ideal else 0.0
