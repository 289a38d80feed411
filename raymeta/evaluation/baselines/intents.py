"""Baselines of purchases by category that know what ours knows, the user's own support included.

category_rate         how often training users bought in the category after so many visits
user_rate             1 - (1 - category rate)^k, k how much oftener than anybody the user has
                      bought in it, the count shrunk by so many baskets of anybody's
logistic_regression   on the counts at the moment, their logarithms, the rates that came true
boosting              of the user's decided moments, and the category
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import support_from_events
from raymeta.data.moments import baskets_of, intent_rows
from raymeta.data.task_split import TaskSplit
from raymeta.evaluation.baselines import tabular
from raymeta.evaluation.baselines.tabular import Columns, Fitted
from raymeta.evaluation.intents import CutIntents, cut_after_visits, end_of, known_of
from raymeta.seeding import numpy_generator

Floats = NDArray[np.float64]
BASELINES = ("category_rate", "user_rate", "logistic_regression", "boosting")
GRIDS: dict[str, tuple[float, ...]] = {
    "user_rate": (1.0, 3.0, 10.0, 30.0),
    "logistic_regression": (0.01, 0.03, 0.1, 0.3, 1.0),
    "boosting": (7, 15, 31, 63),
}
"""Settings by validation log loss: baskets, inverse penalty, leaves."""

MAX_FITTED_ROWS = 400_000
"""Regression and trees are fitted on so many rows of training users at most, drawn at random."""

SMOOTHING = 5.0
"""Moments at the category's rate that the rates of a user's own decided moments start with."""


class IntentColumns:
    """Makes columns from cut users.

    Args:
        split: the categories and the training users that rates are counted on.
        cuts: training users, cut at each size: the category's rate is counted by size.
    """

    def __init__(self, split: TaskSplit, cuts: Sequence[CutIntents]) -> None:
        self._view = split.view
        self._horizon_days = intent_rows(split.view).horizon_days
        baskets = baskets_of(split.train, split.view)
        self._share = np.maximum(baskets.has.mean(0), 1e-6)
        self._sizes = np.array([cut.size for cut in cuts])
        self._rates = np.stack([_rate(cut.labels) for cut in cuts])

    def of(self, cuts: Sequence[CutIntents]) -> Columns:
        """The columns of all (moment, category) rows."""
        return tabular.stacked([self._of_cut(cut) for cut in cuts])

    def rate(self, num_baskets: Floats) -> Floats:
        """The categories' rates at the nearest size in the logarithm, `[N, C]`."""
        distance = np.abs(np.log1p(num_baskets)[:, None] - np.log1p(self._sizes)[None])
        return np.asarray(self._rates[distance.argmin(1)])

    def _of_cut(self, cut: CutIntents) -> Columns:
        known = {name: v.astype(np.float64) for name, v in known_of(cut, self._view).items()}
        bought, since = known["bought"], known["since_days"]
        num_baskets, num_days = known["num_baskets"][:, None], known["num_days"][:, None]
        silent = known["silent_days"][:, None]
        horizon = self._horizon_days
        rate = self.rate(known["num_baskets"])
        own, overall, num_decided = self._own(cut, rate)
        usual_gap = (num_days + horizon) / (bought + 1.0)
        columns = [
            bought,
            since,
            np.log((bought + 3.0 * self._share) / (num_baskets + 3.0)),
            np.where(bought > 0, np.log((since + 1.0) / usual_gap), 0.0),
            bought > 0,
            np.log(rate / (1.0 - rate)),
            own,
            overall,
            num_decided,
            num_baskets,
            num_days,
            silent,
            np.log1p(silent / horizon),
            known["basket_size"][:, None],
            np.log((num_baskets + 1.0) / (num_days / horizon + 1.0)),
            num_baskets == 0,
        ]
        flat = [np.broadcast_to(column, bought.shape).reshape(-1) for column in columns]
        num_categories = bought.shape[1]
        code = np.tile(np.arange(num_categories), len(bought))
        counts = (rate, bought, num_baskets, self._share)
        return Columns(
            labels=cut.labels.reshape(-1, 1).astype(np.float64),
            counts=np.stack([np.broadcast_to(c, bought.shape).reshape(-1) for c in counts], 1),
            numbers=np.stack(flat, 1).astype(np.float64),
            codes=code[:, None],
            one_hot=tabular.one_hot(code, num_categories),
        )

    def _own(self, cut: CutIntents, rate: Floats) -> tuple[Floats, Floats, Floats]:
        """Of a user's decided moments: the rate by category `[N, C]` and how far that of all is
        above the rate of anybody `[N, 1]`, both shrunk; and how many there are, `[N, 1]`."""
        support = support_from_events(cut.supports, self._view)
        mask = support["mask"].numpy()[..., None]
        number = mask.sum(1).astype(np.float64)[cut.user]
        hits = (support["label"].numpy() * mask).sum(1)[cut.user]
        own = (hits + SMOOTHING * rate) / (number + SMOOTHING)
        return own, (own - rate).mean(1, keepdims=True), number


def tuned_baselines(
    split: TaskSplit,
    sizes: Sequence[int],
    names: Sequence[str],
    *,
    note: Callable[[str], None],
) -> tuple[dict[str, Callable[[CutIntents], Floats]], dict[str, Any]]:
    """Each baseline as a function of cut users to probabilities `[N, C]`, and how it was tuned."""
    view, train = split.view, split.train
    cuts = cut_after_visits(train, sizes, view, end_ms=end_of(train))
    columns = IntentColumns(split, cuts)
    rows = _sample(columns.of(cuts))
    held = split.validation
    validation = columns.of(cut_after_visits(held, sizes, view, end_ms=end_of(held)))
    fits = {name: partial(_fit, name, train=rows) for name in names}
    methods, facts = tabular.tune(fits, GRIDS, validation, note=note)
    return {name: _from_cut(fitted, columns) for name, fitted in methods.items()}, facts


def _from_cut(fitted: Fitted, columns: IntentColumns) -> Callable[[CutIntents], Floats]:
    return lambda cut: fitted(columns.of([cut])).reshape(cut.labels.shape)


def _fit(name: str, setting: float, *, train: Columns) -> Fitted:
    if name == "category_rate":
        return lambda rows: rows.counts[:, :1]
    if name == "user_rate":
        return lambda rows: _user_rate(rows.counts, setting)[:, None]
    return tabular.fit_model(name, setting, train)


def _user_rate(counts_N4: Floats, num_prior_baskets: float) -> Floats:
    """The posterior mean of a Gamma prior, as a factor on the rate of a Poisson process."""
    rate, bought, num_baskets, share = counts_N4.T
    factor = (bought / share + num_prior_baskets) / (num_baskets + num_prior_baskets)
    return np.asarray(1.0 - (1.0 - rate) ** factor)


def _rate(labels_NC: NDArray[np.float32]) -> Floats:
    """Of each category, two moments at the rate of all added."""
    number = len(labels_NC)
    return np.asarray((labels_NC.sum(0) + 2.0 * labels_NC.mean()) / (number + 2.0), np.float64)


def _sample(rows: Columns) -> Columns:
    number = len(rows.labels)
    if number <= MAX_FITTED_ROWS:
        return rows
    drawn = numpy_generator(0, "fitted rows").permutation(number)[:MAX_FITTED_ROWS]
    return Columns(*(getattr(rows, name)[drawn] for name in vars(rows)))
