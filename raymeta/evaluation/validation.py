"""Validation tasks made ready to be scored hundreds of times: how tuning measures a setting.

Masks and relevance are computed once, and only nDCG@10 is measured. Which settings are tried is the
business of `tuning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raymeta.evaluation.baselines.mixture import standardise
from raymeta.evaluation.metrics import CUTOFF, hits, ndcg, top_k
from raymeta.evaluation.protocol import Scorer, Tasks

MIXTURE_WEIGHTS = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0)
"""Weights tried for a standardised part beside standardised log-popularity."""

WEIGHT_ROUNDS = 2
"""Coordinate ascent over the weights of several parts goes round so many times."""

MAX_SCORES = 10_000_000
"""Users are limited to so many scores a support size (40 MB in float32)."""


@dataclass(frozen=True)
class ValidationBlock:
    """The validation users of one support size; `[T, I]` masks."""

    tasks: Tasks
    masked: Tensor
    relevant: Tensor
    num_relevant: Tensor

    @classmethod
    def of(cls, tasks: Tasks, num_items: int) -> "ValidationBlock":
        """The first users of `tasks`, up to `MAX_SCORES` (users come in no meaningful order)."""
        tasks = tasks.slice(0, max(1, MAX_SCORES // num_items))
        relevant = tasks.relevant(num_items)
        return cls(tasks, tasks.masked(num_items), relevant, relevant.sum(1))

    def mean_ndcg(self, scores_TI: Tensor) -> float:
        """Mean nDCG@10 over the users."""
        ranked = top_k(scores_TI.masked_fill(self.masked, -torch.inf), CUTOFF)
        return float(ndcg(hits(ranked, self.relevant), self.num_relevant).mean())

    def scores(self, scorer: Scorer) -> Tensor:
        """What `scorer` says of these users, `[T, I]`."""
        return torch.from_numpy(scorer.score(self.tasks.supports))

    def standardised(self, scorer: Scorer) -> Tensor:
        """The same as a mixture takes it."""
        return torch.from_numpy(standardise(scorer.score(self.tasks.supports)))


def mean_ndcg(scorer: Scorer, blocks: Sequence[ValidationBlock]) -> float:
    """nDCG@10 averaged over users, then over the support sizes of `blocks`."""
    return float(np.mean([block.mean_ndcg(block.scores(scorer)) for block in blocks]))


def best_weights(
    prior_I: Tensor,
    blocks: Sequence[ValidationBlock],
    parts: Sequence[Sequence[Tensor]],
) -> tuple[dict[int, tuple[float, ...]], float]:
    """The best weight of each part of a mixture at each support size, and the mean nDCG@10.

    Args:
        prior_I: standardised log-popularity.
        blocks: one a support size.
        parts: for each block, the standardised scores `[T, I]` of each part.
    """
    weights, scores = {}, []
    for block, scores_of in zip(blocks, parts, strict=True):
        found, score = _ascend(prior_I, block, scores_of)
        weights[block.tasks.size] = found
        scores.append(score)
    return weights, float(np.mean(scores))


def _ascend(
    prior_I: Tensor, block: ValidationBlock, parts: Sequence[Tensor]
) -> tuple[tuple[float, ...], float]:
    """Coordinate ascent from no weight at all; a smaller weight wins a tie."""
    weights = [0.0] * len(parts)
    best = block.mean_ndcg(prior_I.expand_as(block.masked))
    for _ in range(WEIGHT_ROUNDS if len(parts) > 1 else 1):
        for changed, part in enumerate(parts):
            rest = prior_I.expand_as(part).clone()
            for index, other in enumerate(parts):
                if index != changed:
                    rest.add_(other, alpha=weights[index])
            for weight in MIXTURE_WEIGHTS:
                score = block.mean_ndcg(torch.add(rest, part, alpha=weight))
                if score > best:
                    best, weights[changed] = score, weight
    return tuple(weights), best
