"""From scores to a list: what may be shown, pins, diversity and exploration.

Pure functions of one user's scores; drawing takes a generator. Leaves where scores and masks come
from to `recommender`.

Shapes: I items, P items of the pool that is re-ranked, D width of an item vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MIN_POOL = 100
POOL_FACTOR = 10
MAX_POOL = 1000
"""Diversity re-ranks the best `POOL_FACTOR * n` items, within these bounds: further down nothing is
relevant enough to be shown for being different."""

MIN_ITEMS_IN_BLOCKS = 50_000
BLOCK = 256
"""Catalogues from that size are searched by blocks of so many items: at a million items and n = 10
in .1 ms where topk takes 1 ms."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How one list is to be chosen.

    Attributes:
        n: how long it is at most.
        pins: (position, item index): items at fixed places.
        diversity: 0 for score alone, to 1 for being unlike the items above alone.
        temperature: of a Plackett-Luce draw; None takes the best.
    """

    n: int
    pins: tuple[tuple[int, int], ...] = ()
    diversity: float = 0.0
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a list.

    Attributes:
        index: of the item.
        propensity: probability of the item here given those above; None where nothing was drawn.
        pinned: whether the shop put it here.
    """

    index: int
    propensity: float | None = None
    pinned: bool = False


def choose(
    scores_I: Tensor,
    wish: Wish,
    *,
    vectors_ID: Tensor | None = None,
    generator: np.random.Generator | None = None,
) -> list[Slot]:
    """The list that a wish makes of scores.

    Args:
        scores_I: `-inf` where an item may not be shown; pins are shown nevertheless.
        wish: how to choose.
        vectors_ID: item vectors, for diversity.
        generator: for a draw.
    """
    pinned = dict(wish.pins)
    if pinned:
        scores_I = scores_I.clone()
        scores_I[list(pinned.values())] = -torch.inf
    count = max(0, wish.n - sum(position < wish.n for position in pinned))
    if wish.temperature is not None:
        assert generator is not None
        chosen = draw(scores_I, count, temperature=wish.temperature, generator=generator)
    elif wish.diversity > 0.0:
        assert vectors_ID is not None
        chosen = [Slot(i) for i in diversify(scores_I, count, vectors_ID, weight=wish.diversity)]
    else:
        chosen = [Slot(index) for index in best(scores_I, count)]
    return _with_pins(chosen, pinned, n=wish.n, drawn=wish.temperature is not None)


def best(scores_I: Tensor, n: int) -> list[int]:
    """The `n` highest scores, highest first, without those of `-inf`; the rest is not sorted.

    Of a large catalogue only the `n` blocks with the highest maxima are looked into: an item of the
    list in another block would have `n` items above it.
    """
    if len(scores_I) < MIN_ITEMS_IN_BLOCKS or n > MAX_POOL // POOL_FACTOR:
        return _highest(scores_I, n)
    num_blocks = len(scores_I) // BLOCK
    end = num_blocks * BLOCK
    heads = scores_I[:end].view(num_blocks, BLOCK).amax(dim=1).topk(n).indices
    inside = (heads[:, None] * BLOCK + torch.arange(BLOCK)).reshape(-1)
    looked_at = torch.cat([inside, torch.arange(end, len(scores_I))])
    return looked_at[_highest(scores_I[looked_at], n)].tolist()


def _highest(scores_I: Tensor, n: int) -> list[int]:
    scores, indices = torch.topk(scores_I, min(n, len(scores_I)))
    return indices[scores > -torch.inf].tolist()


def draw(
    scores_I: Tensor, n: int, *, temperature: float, generator: np.random.Generator
) -> list[Slot]:
    """A Plackett-Luce sample without replacement, with its propensities.

    Item i follows those above it with probability exp(s_i / T) / sum over the rest of
    exp(s_j / T). Sampled in one pass as the n largest of s_i / T + Gumbel noise (Kool, van Hoof,
    Welling: Stochastic Beams and Where to Find Them, ICML 2019, section 3); the denominators are
    summed from the end, so that none is a difference of nearly equal numbers.
    """
    logits = scores_I.double().numpy() / temperature
    allowed = np.flatnonzero(logits > -np.inf)
    if n == 0 or len(allowed) == 0:
        return []
    noisy = logits[allowed] + generator.gumbel(size=len(allowed))
    order = np.argsort(-noisy)
    chosen, rest = allowed[order[:n]], allowed[order[n:]]
    remaining = _log_sum_exp(logits[rest])
    denominators = np.empty(len(chosen))
    for place in reversed(range(len(chosen))):
        remaining = np.logaddexp(remaining, logits[chosen[place]])
        denominators[place] = remaining
    propensities = np.exp(logits[chosen] - denominators)
    return [
        Slot(int(index), propensity=float(propensity))
        for index, propensity in zip(chosen, propensities, strict=True)
    ]


def diversify(scores_I: Tensor, n: int, vectors_ID: Tensor, *, weight: float) -> list[int]:
    """Maximal marginal relevance: next the item with the largest

        (1 - weight) * relevance_i - weight * max over those above of cos(v_i, v_j)

    (Carbonell and Goldstein, SIGIR 1998, equation 1, with lambda = 1 - weight). Relevance is the
    score scaled to [0, 1] over the pool, so that the dial means the same for every model.
    """
    size = min(max(POOL_FACTOR * n, MIN_POOL), max(MAX_POOL, n))
    pool = best(scores_I, size)
    if not pool:
        return []
    scores_P = scores_I[pool].double()
    span = float(scores_P[0] - scores_P[-1])
    relevance_P = (scores_P - scores_P[-1]) / span if span > 0 else torch.ones_like(scores_P)
    unit_PD = torch.nn.functional.normalize(vectors_ID[pool].double(), dim=1)
    nearest_P = torch.zeros(len(pool), dtype=torch.float64)
    open_P = torch.ones(len(pool), dtype=torch.bool)
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        worth_P = (1.0 - weight) * relevance_P - weight * nearest_P
        place = int(worth_P.masked_fill(~open_P, -torch.inf).argmax())
        similar_P = unit_PD @ unit_PD[place]
        nearest_P = torch.maximum(nearest_P, similar_P) if chosen else similar_P
        open_P[place] = False
        chosen.append(pool[place])
    return chosen


def _with_pins(
    chosen: Sequence[Slot], pinned: dict[int, int], *, n: int, drawn: bool
) -> list[Slot]:
    slots: list[Slot] = []
    following = iter(chosen)
    for position in range(n):
        if position in pinned:
            # it would have been here whatever was drawn
            certain = 1.0 if drawn else None
            slots.append(Slot(pinned[position], propensity=certain, pinned=True))
        elif (slot := next(following, None)) is not None:
            slots.append(slot)
    return slots


def _log_sum_exp(values: NDArray[np.float64]) -> float:
    if len(values) == 0:
        return -np.inf
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))
