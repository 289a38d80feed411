"""Ratings that a new user gives, predicted from the ratings known of the user.

Some of a user's ratings are held back: the last ones, with all before them as the support (Lee et
al., MeLU, KDD 2019, section 4.2), or some drawn at random, with all others as the support (as
RecBole's MetaRec extension runs its models). Measured for each user:

    mae               mean absolute error
    ndcg_at_3         nDCG@3 with gain 2^rating - 1
    precision_at_5, ndcg_at_5, mrr_at_5
                      of the better half of the held-back items, ties at its border cut at random:
                      the expectation over the cuts, in closed form
    click_ndcg_at_5   nDCG@5 of the items that the user likes; NaN for one who likes none

Only the held-back items are put in order. Ranking a whole catalogue is `protocol`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History, SupportView, pad_items, support_from_events
from raymeta.errors import DataError
from raymeta.evaluation.adapted import USERS_PER_BATCH, Adapts
from raymeta.seeding import numpy_generator
from raymeta.types import Params

RATING_METRICS = (
    "mae",
    "ndcg_at_3",
    "precision_at_5",
    "ndcg_at_5",
    "mrr_at_5",
    "click_ndcg_at_5",
)
TOP = 5
LIKED_FROM = 4.0
NUM_CHANCE_ORDERS = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RatingTasks:
    """Users with ratings to predict.

    Attributes:
        rows: positions in the list of users that they were cut from, `[T]`.
        supports: what is known of each.
        items: catalogue items to predict, `[Q]` each.
        ratings: what the user gave them, `[Q]` each.
        num_outside: held-back ratings of items that are not in the catalogue, left out.
    """

    rows: NDArray[np.int64]
    supports: list[History]
    items: list[NDArray[np.int64]]
    ratings: list[Floats]
    num_outside: int

    def __len__(self) -> int:
        return len(self.supports)


class RatingPredictor(Protocol):
    """Anything that predicts ratings of users known by their events."""

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        """The rating of each item of each user."""
        ...


def hold_back(
    histories: Sequence[History],
    *,
    num_query: int,
    support_size: int | None = None,
    draw: int | None = None,
    cold: NDArray[np.bool_] | None = None,
) -> RatingTasks:
    """Divides each user's rated events into held-back ones and a support.

    Args:
        histories: in stored (time) order; a user with no more than `num_query` ratings is left out.
        num_query: ratings held back.
        support_size: the support is the last so many of the other events; all if not given.
        draw: which random ratings are held back; the last ones if not given.
        cold: if given, `[I]`, supports are without these items, and of what is held back only
            these are to be predicted.

    Raises:
        DataError: no user has enough ratings.
    """
    rows, supports, items, ratings = [], [], [], []
    outside = 0
    for row, history in enumerate(histories):
        rated_at = np.flatnonzero(np.isfinite(history.value))
        if len(rated_at) <= num_query:
            continue
        if draw is None:
            held = rated_at[-num_query:]
            others = np.arange(held[0])
        else:
            generator = numpy_generator(draw, "held back", row, len(history))
            held = np.sort(generator.choice(rated_at, num_query, replace=False))
            others = np.setdiff1d(np.arange(len(history)), held)
        if cold is not None:
            others = others[~cold[history.item[others]]]
        start = 0 if support_size is None else max(0, len(others) - support_size)
        query = history.where(held)
        known = query.item >= 0
        outside += int((~known).sum())
        if cold is not None:
            known &= cold[query.item]
        if known.any():
            rows.append(row)
            supports.append(history.where(others[start:]))
            items.append(query.item[known])
            ratings.append(query.value[known].astype(np.float64))
    if not supports:
        raise DataError(
            f"No user has more than {num_query} ratings.", remedy="Hold fewer ratings back."
        )
    return RatingTasks(np.array(rows, np.int64), supports, items, ratings, outside)


def rating_metrics(
    predictor: RatingPredictor, tasks: RatingTasks, *, liked_from: float = LIKED_FROM
) -> dict[str, Floats]:
    """All of `RATING_METRICS` of each user, `[T]`."""
    predicted = predictor.predict(tasks.supports, tasks.items)
    pairs = list(zip(predicted, tasks.ratings, strict=True))
    found = [
        {"mae": float(np.abs(p - r).mean()), **order_metrics(p, r, liked_from=liked_from)}
        for p, r in pairs
    ]
    return {name: np.array([of[name] for of in found]) for name in RATING_METRICS}


def chance_metrics(
    tasks: RatingTasks, *, mean: float, liked_from: float = LIKED_FROM, seed: int = 0
) -> dict[str, Floats]:
    """Items in a random order (the mean over 64 of them), and one rating for all."""
    generator = numpy_generator(seed, "chance")
    table = []
    for ratings in tasks.ratings:
        orders = generator.random((NUM_CHANCE_ORDERS, len(ratings)))
        found = [order_metrics(order, ratings, liked_from=liked_from) for order in orders]
        means = {name: float(np.mean([of[name] for of in found])) for name in found[0]}
        table.append({"mae": float(np.abs(ratings - mean).mean()), **means})
    return {name: np.array([of[name] for of in table]) for name in RATING_METRICS}


def order_metrics(predicted: Floats, ratings: Floats, *, liked_from: float) -> dict[str, float]:
    """Those of `RATING_METRICS` that look at the order of one user's items only.

    Equal predictions keep the order in which items are given, which must not know the ratings.
    """
    ranked = ratings[np.argsort(-predicted, kind="stable")]
    wanted, num_tied = _better_half(ranked)
    likes = (ranked >= liked_from).astype(np.float64)
    return {
        "ndcg_at_3": _ndcg(2.0**ranked - 1.0, 3),
        "precision_at_5": float(wanted[:TOP].mean()),
        "ndcg_at_5": float(_dcg(wanted, TOP) / _dcg(np.ones(_half(ranked)), TOP)),
        "mrr_at_5": _expected_mrr(wanted, num_tied),
        "click_ndcg_at_5": _ndcg(likes, TOP) if likes.any() else float("nan"),
    }


class AdaptedRatings:
    """A meta-learner whose scores are ratings, adapted to each user's support.

    Args:
        forget: adapt to an empty support instead.
    """

    def __init__(
        self, algorithm: Adapts, meta_params: Params, *, view: SupportView, forget: bool = False
    ) -> None:
        self._algorithm, self._params, self._view = algorithm, meta_params, view
        self._forget = forget

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        if self._forget:
            supports = [History.empty(support.features) for support in supports]
        predicted: list[Floats] = []
        for start in range(0, len(supports), USERS_PER_BATCH):
            rows = slice(start, start + USERS_PER_BATCH)
            support = support_from_events(supports[rows], self._view)
            candidates = pad_items(items[rows])
            state = self._algorithm.adapt(self._params, support)
            scores = self._algorithm.score(self._params, state, candidates["item"]).double()
            predicted += [
                row[: len(wanted)].numpy() for row, wanted in zip(scores, items[rows], strict=True)
            ]
        return predicted


class TrueRatings:
    """The ceiling of an order: the ratings themselves."""

    def __init__(self, tasks: RatingTasks) -> None:
        self._ratings = tasks.ratings

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        del supports, items
        return self._ratings


def _better_half(ranked: Floats) -> tuple[Floats, int]:
    """How likely each item is in the better half when ties at its border are cut at random, `[Q]`;
    and how many ties at the border are in it."""
    half = _half(ranked)
    border = np.sort(ranked)[::-1][half - 1]
    above, tied = ranked > border, ranked == border
    inside = half - int(above.sum())
    return above + tied * (inside / tied.sum()), inside


def _half(ranked: Floats) -> int:
    return max(1, len(ranked) // 2)


def _expected_mrr(wanted: Floats, num_tied: int) -> float:
    """Expectation of 1 / rank of the first item of the better half, 0 below rank 5."""
    tied = (wanted > 0) & (wanted < 1)
    if not tied.any():
        num_tied = 0
    total = int(tied.sum())
    none_yet, expected = 1.0, 0.0
    for rank in range(1, min(TOP, len(wanted)) + 1):
        met = int(tied[:rank].sum())
        misses = comb(total - met, num_tied) / comb(total, num_tied)
        still_none = 0.0 if (wanted[:rank] == 1).any() else misses
        expected += (none_yet - still_none) / rank
        none_yet = still_none
    return expected


def _ndcg(gains: Floats, k: int) -> float:
    return float(_dcg(gains, k) / _dcg(np.sort(gains)[::-1], k))


def _dcg(gains: Floats, k: int) -> float:
    top = gains[:k]
    return float((top / np.log2(np.arange(2, 2 + len(top)))).sum())
