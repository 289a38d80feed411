"""Protocol P3: predict what a new user would rate, from the ratings that came before.

A user's last ratings are held back; everything before them is the support. Judged by the mean
absolute error, and by nDCG@3 with gain 2^rating - 1 among the held-back items, each a mean over
users (Lee et al., MeLU, KDD 2019, section 4.2). Ranking a whole catalogue is `protocol`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.data.events import History, SupportView, pad_items, support_from_events
from raymeta.data.ratings import rated, shrunk_means
from raymeta.errors import DataError
from raymeta.evaluation.adapted import USERS_PER_BATCH
from raymeta.types import Examples, Params, TaskState

TOP = 3


@dataclass(frozen=True)
class RatingTasks:
    """Users with ratings to predict.

    Attributes:
        supports: what came before.
        items: catalogue items to predict, `[Q]` each.
        ratings: what the user gave them, `[Q]` each.
        num_outside: held-back ratings of items that are not in the catalogue, left out.
    """

    supports: list[History]
    items: list[NDArray[np.int64]]
    ratings: list[NDArray[np.float64]]
    num_outside: int

    def __len__(self) -> int:
        return len(self.supports)


class RatingPredictor(Protocol):
    """Anything that predicts ratings of users known by their events."""

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float64]]:
        """The rating of each item of each user."""
        ...


class Adapts(Protocol):
    """The part of a meta-learner that predicting needs."""

    def adapt(self, meta_params: Params, support: Examples) -> TaskState: ...

    def score(
        self, meta_params: Params, state: TaskState, candidates: torch.Tensor | None = None
    ) -> torch.Tensor: ...


def hold_back(
    histories: Sequence[History], *, num_query: int, support_size: int | None = None
) -> RatingTasks:
    """The last `num_query` rated events of each user against those before.

    Args:
        histories: in stored (time) order; a user with no more than `num_query` ratings is left out.
        num_query: ratings held back.
        support_size: the support is its last so many events; all of them if not given.

    Raises:
        DataError: no user has enough ratings.
    """
    supports, items, ratings = [], [], []
    outside = 0
    for history in histories:
        rated_at = np.flatnonzero(np.isfinite(history.value))
        if len(rated_at) <= num_query:
            continue
        held = history.where(rated_at[-num_query:])
        before = int(rated_at[-num_query])
        start = 0 if support_size is None else max(0, before - support_size)
        known = held.item >= 0
        outside += int((~known).sum())
        if known.any():
            supports.append(history.where(slice(start, before)))
            items.append(held.item[known])
            ratings.append(held.value[known].astype(np.float64))
    if not supports:
        raise DataError(
            f"No user has more than {num_query} ratings.", remedy="Hold fewer ratings back."
        )
    return RatingTasks(supports, items, ratings, outside)


def rating_errors(predictor: RatingPredictor, tasks: RatingTasks) -> dict[str, NDArray[np.float64]]:
    """`mae` and `ndcg_at_3` of each user, `[T]`."""
    predicted = predictor.predict(tasks.supports, tasks.items)
    pairs = list(zip(predicted, tasks.ratings, strict=True))
    return {
        "mae": np.array([np.abs(p - r).mean() for p, r in pairs]),
        "ndcg_at_3": np.array([_ndcg(p, r) for p, r in pairs]),
    }


class AdaptedRatings:
    """A meta-learner whose scores are ratings, adapted to each user's support."""

    def __init__(self, algorithm: Adapts, meta_params: Params, *, view: SupportView) -> None:
        self._algorithm, self._params, self._view = algorithm, meta_params, view

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float64]]:
        predicted: list[NDArray[np.float64]] = []
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


class ItemMean:
    """Each item's mean rating, shrunk; every user the same."""

    def __init__(
        self, histories: Sequence[History], *, num_items: int, positive_types: Sequence[int]
    ) -> None:
        self.means = shrunk_means(
            *rated(histories, positive_types=positive_types), num_items=num_items
        )

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float64]]:
        del supports
        return [self.means[wanted] for wanted in items]


class UserItemBias:
    """m + b_u + b_i: each bias the shrunk mean of what the other leaves, fitted by turns.

    Koren, "Factorization Meets the Neighborhood", KDD 2008, section 2.1. A new user's bias is
    folded in from the support.

    Args:
        histories: of training users.
        user_shrinkage: ratings after which a user's bias is half believed.
        num_rounds: turns of fitting items, then users.
    """

    def __init__(
        self,
        histories: Sequence[History],
        *,
        num_items: int,
        positive_types: Sequence[int],
        user_shrinkage: float,
        num_rounds: int = 10,
    ) -> None:
        self._shrinkage = user_shrinkage
        per_user = [rated([h], positive_types=positive_types) for h in histories]
        items = np.concatenate([item for item, _ in per_user])
        ratings = np.concatenate([rating for _, rating in per_user])
        bias = np.zeros(len(ratings))
        for _ in range(num_rounds):
            self._means = shrunk_means(items, ratings - bias, num_items=num_items)
            bias = np.concatenate(
                [np.full(len(item), self._bias(item, rating)) for item, rating in per_user]
            )

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float64]]:
        predicted = []
        for support, wanted in zip(supports, items, strict=True):
            known = support.where((support.item >= 0) & np.isfinite(support.value))
            predicted.append(self._means[wanted] + self._bias(known.item, known.value))
        return predicted

    def _bias(self, items: NDArray[np.int64], ratings: NDArray[np.floating]) -> float:
        return float((ratings - self._means[items]).sum() / (len(items) + self._shrinkage))


def _ndcg(predicted: NDArray[np.float64], ratings: NDArray[np.float64]) -> float:
    gains = 2.0**ratings - 1.0
    discounts = 1.0 / np.log2(np.arange(2, 2 + min(TOP, len(ratings))))
    # ties are broken in the given order, which knows nothing of the ratings
    ranked = gains[np.argsort(-predicted, kind="stable")][: len(discounts)]
    best = np.sort(gains)[::-1][: len(discounts)]
    return float((ranked * discounts).sum() / (best * discounts).sum())
