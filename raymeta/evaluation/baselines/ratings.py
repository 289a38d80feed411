"""Ratings of new users by simple methods: means, biases, factors and neighbours, each tuned.

Settings are those that are best on validation users, by the measure that the scenario is judged
by, averaged over the support sizes. Every method may round what it predicts towards whole levels,
fully or by half, if that is better there: an absolute error is least at a median, which is a level.
What is rounded orders items as it did before.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History
from raymeta.data.rating_factors import fit_factors
from raymeta.data.ratings import RatingBiases, fit_biases, rated, shrunk_means
from raymeta.data.task_split import TaskSplit
from raymeta.evaluation.ratings import Floats, RatingPredictor, RatingTasks, rating_metrics

BASELINES = ("item_mean", "user_item_bias", "rating_factors", "rating_knn")
Settings = dict[str, float]

GRIDS: Mapping[str, Sequence[Settings]] = {
    "item_mean": [{}],
    "user_item_bias": [
        {"user_shrinkage": value} for value in (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
    ],
    "rating_factors": [
        {"dim": dim, "regularisation": value, "bias_deviation": deviation}
        for dim, value, deviation in itertools.product((1, 2, 4, 8), (20, 60, 180), (0.3, 0.45))
    ],
    "rating_knn": [
        {"shrink": shrink, "damping": damping}
        for shrink, damping in itertools.product((3, 10, 30, 100), (0.1, 0.3, 1.0, 3.0))
    ],
}
ROUNDINGS = (0.0, 0.5, 1.0)


class ItemMean:
    """Each item's mean rating, shrunk; every user the same."""

    def __init__(self, split: TaskSplit) -> None:
        items, ratings = rated(split.train, positive_types=split.positive_types)
        self._means = shrunk_means(items, ratings, num_items=len(split.catalogue))

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        del supports
        return [self._means[wanted] for wanted in items]


class UserItemBias:
    """mean_j + b_u; a new user's bias is folded in from the support."""

    def __init__(self, split: TaskSplit, *, user_shrinkage: float) -> None:
        self._biases = _biases(split, user_shrinkage)

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        predicted = []
        for support, wanted in zip(supports, items, strict=True):
            bias = self._biases.of_user(*_known(support))
            predicted.append(self._biases.item_means[wanted] + bias)
        return predicted


class RatingFactors:
    """mean_j + b_u + v_j . w_u, (b_u, w_u) folded in as the mean of its posterior.

    Item vectors and noise are those of `fit_factors`.

    Args:
        dim: width of v_j.
        regularisation: precision of v_j.
        bias_deviation: standard deviation of b_u.
    """

    def __init__(
        self, split: TaskSplit, *, dim: float, regularisation: float, bias_deviation: float
    ) -> None:
        self._biases = _biases(split)
        self._deviation = bias_deviation
        fit = fit_factors(
            split.train,
            self._biases,
            positive_types=split.positive_types,
            dim=int(dim),
            regularisation=regularisation,
        )
        self._vectors, self._noise = fit.vectors, fit.noise

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        predicted = []
        for support, wanted in zip(supports, items, strict=True):
            item, rating = _known(support)
            left = rating - self._biases.item_means[item]
            mean = _posterior_mean(self._rows(item), left, self._noise)
            predicted.append(self._biases.item_means[wanted] + self._rows(wanted) @ mean)
        return predicted

    def _rows(self, items: NDArray[np.int64]) -> Floats:
        return np.column_stack([np.full(len(items), self._deviation), self._vectors[items]])


class RatingNeighbours:
    """mean_j + b_u + sum over support items i of s_ij e_i / (damping + sum of |s_ij|).

    e is what biases leave; s_ij = n_ij / (n_ij + shrink) times the cosine of e over the n_ij
    training users who rated both (Koren, KDD 2008, section 2.2).
    """

    def __init__(self, split: TaskSplit, *, shrink: float, damping: float) -> None:
        self._biases, self._damping = _biases(split), damping
        left = np.zeros((len(split.train), len(split.catalogue)), np.float32)
        seen = np.zeros_like(left)
        for row, history in enumerate(split.train):
            item, rating = _known(history)
            left[row, item] = self._left(item, rating)
            seen[row, item] = 1.0
        both = seen.T @ seen
        lengths = np.sqrt((left**2).T @ seen)
        product = lengths * lengths.T
        cosine = np.divide(left.T @ left, product, out=np.zeros_like(both), where=product > 0)
        self._similarity = cosine * both / (both + shrink)

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        predicted = []
        for support, wanted in zip(supports, items, strict=True):
            item, rating = _known(support)
            similarity = self._similarity[np.ix_(wanted, item)].astype(np.float64)
            total = self._damping + np.abs(similarity).sum(1)
            base = self._biases.item_means[wanted] + self._biases.of_user(item, rating)
            predicted.append(base + similarity @ self._left(item, rating) / total)
        return predicted

    def _left(self, item: NDArray[np.int64], rating: Floats) -> Floats:
        biases = self._biases
        return rating - biases.item_means[item] - biases.of_user(item, rating)


class Rounded:
    """Predictions moved towards whole ratings between the lowest and the highest there is.

    Args:
        share: how far, 0 to 1.
        low, high: the ends of the scale.
    """

    def __init__(self, base: RatingPredictor, *, share: float, low: float, high: float) -> None:
        self._base, self._share, self._low, self._high = base, share, low, high

    def predict(
        self, supports: Sequence[History], items: Sequence[NDArray[np.int64]]
    ) -> list[Floats]:
        found = []
        for predicted in self._base.predict(supports, items):
            inside = predicted.clip(self._low, self._high)
            found.append(inside + self._share * (np.round(inside) - inside))
        return found


@dataclass(frozen=True)
class TunedRatings:
    """A baseline at its best on validation.

    Attributes:
        ratings: what it predicts; for the order of items, `order`.
        settings: chosen, `rounding` among them.
        num_configurations: how many were scored.
        validation: the measure, higher is better.
    """

    ratings: RatingPredictor
    order: RatingPredictor
    settings: Settings
    num_configurations: int
    validation: float

    def metrics(self, tasks: RatingTasks, *, liked_from: float) -> dict[str, Floats]:
        """All metrics; the order is that of what was not rounded."""
        found = rating_metrics(self.order, tasks, liked_from=liked_from)
        error = rating_metrics(self.ratings, tasks, liked_from=liked_from)["mae"]
        return {**found, "mae": error}

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {
            "settings": self.settings,
            "num_configurations": self.num_configurations,
            "validation": self.validation,
        }


def tuned_ratings(
    name: str,
    split: TaskSplit,
    measure: Callable[[RatingPredictor], float],
    *,
    order_only: bool,
) -> TunedRatings:
    """The baseline `name` with the settings for which `measure` is highest.

    Args:
        order_only: rounding is not tried, since `measure` looks at the order only.
    """
    makers: Mapping[str, Callable[..., RatingPredictor]] = {
        "item_mean": ItemMean,
        "user_item_bias": UserItemBias,
        "rating_factors": RatingFactors,
        "rating_knn": RatingNeighbours,
    }
    _, ratings = rated(split.train, positive_types=split.positive_types)
    ends = {"low": float(ratings.min()), "high": float(ratings.max())}
    shares = (0.0,) if order_only else ROUNDINGS
    best: TunedRatings | None = None
    num_configurations = len(GRIDS[name]) * len(shares)
    for settings in GRIDS[name]:
        base = makers[name](split, **settings)
        for share in shares:
            predictor = Rounded(base, share=share, **ends)
            score = measure(predictor)
            if best is None or score > best.validation:
                chosen = {**settings, "rounding": share}
                best = TunedRatings(predictor, base, chosen, num_configurations, score)
    assert best is not None
    return best


def _biases(split: TaskSplit, user_shrinkage: float = 4.0) -> RatingBiases:
    return fit_biases(
        split.train,
        num_items=len(split.catalogue),
        positive_types=split.positive_types,
        user_shrinkage=user_shrinkage,
    )


def _known(history: History) -> tuple[NDArray[np.int64], Floats]:
    """Item and rating of the events that have both."""
    known = (history.item >= 0) & np.isfinite(history.value)
    return history.item[known], history.value[known].astype(np.float64)


def _posterior_mean(rows: Floats, left: Floats, noise: float) -> Floats:
    """Of w ~ N(0, 1) given left = rows . w + N(0, noise)."""
    precision = np.eye(rows.shape[1]) + rows.T @ rows / noise
    return np.linalg.solve(precision, rows.T @ left / noise).astype(np.float64)
