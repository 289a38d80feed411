"""How good probabilities are, over impressions, with intervals over users.

Of each target: log loss (nats), AUC over all impressions, GAUC (mean over users of their own AUC,
weighted by their impressions; users with one label only have none: Zhou et al., Deep Interest
Network, KDD 2018, eq. 9) and ECE (mean absolute gap of rate and probability over bins of equally
many impressions: Naeini et al., AAAI 2015). Each is a function of sums over users, so that
resampling users takes one product of matrices a method; AUC is for that taken over `AUC_BINS`
quantiles of the scores, ties within one counting one half.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from raymeta.evaluation.bootstrap import LEVEL, interval
from raymeta.evaluation.fold import OURS, FoldScores
from raymeta.evaluation.labelled import log_losses
from raymeta.evaluation.summary import LABELS
from raymeta.seeding import numpy_generator

Floats = NDArray[np.float64]
METRICS = ("log_loss", "auc", "gauc", "ece")
ECE_BINS = 15
AUC_BINS = 1000
NUM_RESAMPLES = 1000
FORMAT_VERSION = 1


class Judged(NamedTuple):
    """What a report is of.

    Attributes:
        targets: what the probabilities are of.
        unit: what a support size counts.
        curve: the metric of the picture.
        about: what is known and what is judged, for a reader.
    """

    targets: tuple[str, ...]
    unit: str
    curve: str
    about: str


def auc(label: Floats, score: Floats) -> float:
    """Probability that an impression with the label is above one without it, ties one half."""
    positive = label > 0
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def user_sums(
    label: Floats, probability: Floats, user: NDArray[np.int64], num_users: int
) -> dict[str, tuple[Any, Callable[[Floats], Floats]]]:
    """Of each metric, what it sums over each user `[U, K]`, and the metric of sums `[R, K]`."""
    loss = log_losses(label, probability)
    totals = np.stack([np.bincount(user, w, num_users) for w in (loss, np.ones_like(loss))], 1)
    bins = _equal_bins(probability, ECE_BINS)
    gaps = _by_bin(user, bins, label - probability, (num_users, ECE_BINS))
    with_size = np.column_stack([gaps.toarray(), totals[:, 1]])
    places = _equal_bins(probability, AUC_BINS)
    shape = (num_users, AUC_BINS)
    ranked = sparse.hstack(
        [_by_bin(user, places, label, shape), _by_bin(user, places, 1.0 - label, shape)]
    ).tocsr()
    return {
        "log_loss": (totals, lambda s: s[:, 0] / s[:, 1]),
        "auc": (ranked, _auc_of_bins),
        "gauc": (_own_auc(label, probability, user, num_users), lambda s: s[:, 0] / s[:, 1]),
        "ece": (with_size, lambda s: np.abs(s[:, :-1]).sum(1) / s[:, -1]),
    }


def summarise(scores: Sequence[FoldScores], *, judged: Judged, seed: int = 0) -> dict[str, Any]:
    """Everything that a report says of quality; methods, differences and folds as in ranking.

    A metric's name is `click_auc` and so on, `click` one of the targets. `calibration` has for each
    method, by target, the mean probability and the rate of each bin at the largest support size.
    """
    table = pd.concat([part.table for part in scores], ignore_index=True)
    present = [name for name in LABELS if name in set(table["method"])]
    sizes = sorted(int(size) for size in table["size"].unique())
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "support_sizes": sizes,
        "interval": {"level": LEVEL, "num_resamples": NUM_RESAMPLES, "over": "users"},
        "num_users": {},
        "num_judged": {},
        "judged": judged._asdict(),
        "methods": {name: {} for name in present},
        "differences": {name: {} for name in present if name != OURS and OURS in present},
        "calibration": {},
        "folds": [part.facts for part in scores if part.facts],
    }
    for size in sizes:
        at_size = dict(list(table[table["size"] == size].groupby("method")))
        _summarise_size(result, {name: at_size[name] for name in present}, size, seed)
    for name in present:
        last = table[(table["size"] == sizes[-1]) & (table["method"] == name)]
        result["calibration"][name] = {t: calibration(last, t) for t in judged.targets}
    return result


def calibration(rows: pd.DataFrame, target: str) -> list[dict[str, float]]:
    """The mean probability and the rate of each of `ECE_BINS` bins."""
    bins = _equal_bins(rows[f"p_{target}"].to_numpy(np.float64), ECE_BINS)
    means = rows.groupby(bins)[[f"p_{target}", target]].mean()
    return [{"predicted": float(p), "rate": float(y)} for p, y in means.to_numpy()]


def _summarise_size(
    result: dict[str, Any], tables: dict[str, pd.DataFrame], size: int, seed: int
) -> None:
    users = np.unique(next(iter(tables.values()))["user_id"].to_numpy(str))
    result["num_users"][str(size)] = len(users)
    result["num_judged"][str(size)] = len(next(iter(tables.values())))
    draw = numpy_generator(seed, "bootstrap", size)
    drawn = draw.multinomial(
        len(users), np.full(len(users), 1 / len(users)), size=NUM_RESAMPLES
    ).astype(np.float64)
    everybody = np.ones((1, len(users)))
    found: dict[str, dict[str, tuple[float, Floats]]] = {}
    for name, rows in tables.items():
        user = np.searchsorted(users, rows["user_id"].to_numpy(str))
        found[name] = {}
        for target in result["judged"]["targets"]:
            label = rows[target].to_numpy(np.float64)
            probability = rows[f"p_{target}"].to_numpy(np.float64)
            for metric, (sums, of) in user_sums(label, probability, user, len(users)).items():
                value = float(of(_product(everybody, sums))[0])
                if metric == "auc":
                    value = auc(label, probability)
                found[name][f"{target}_{metric}"] = value, of(_product(drawn, sums))
    for name, metrics in found.items():
        spans = {m: _span(value, drawn_values) for m, (value, drawn_values) in metrics.items()}
        result["methods"][name][str(size)] = spans
        if name in result["differences"]:
            result["differences"][name][str(size)] = {
                m: _span(found[OURS][m][0] - value, found[OURS][m][1] - drawn_values)
                for m, (value, drawn_values) in metrics.items()
            }


def _span(value: float, drawn: Floats) -> dict[str, float]:
    low, high = interval(drawn[:, None])
    return {"mean": value, "low": float(low[0]), "high": float(high[0])}


def _product(weights_RU: Floats, sums_UK: Any) -> Floats:
    return np.asarray((sums_UK.T @ weights_RU.T).T)


def _auc_of_bins(sums: Floats) -> Floats:
    positive, negative = sums[:, :AUC_BINS], sums[:, AUC_BINS:]
    below = np.cumsum(negative, 1) - negative / 2
    return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def _own_auc(
    label: Floats, score: Floats, user: NDArray[np.int64], num_users: int
) -> NDArray[np.float64]:
    """Impressions x AUC, and impressions, of each user with both labels, `[U, 2]`."""
    order = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user, minlength=num_users))
    sums = np.zeros((num_users, 2))
    for row, part in enumerate(np.split(order, ends[:-1])):
        own = auc(label[part], score[part])
        if not np.isnan(own):
            sums[row] = len(part) * own, len(part)
    return sums


def _equal_bins(values: Floats, num_bins: int) -> NDArray[np.int64]:
    """The bin of each value; equal values share one, so bins are as equal as ties allow."""
    place = (rankdata(values, method="min") - 1) * num_bins // len(values)
    return np.asarray(place, np.int64)


def _by_bin(
    user: NDArray[np.int64], bins: NDArray[np.int64], weight: Floats, shape: tuple[int, int]
) -> sparse.csr_array:
    return sparse.coo_array((weight, (user, bins)), shape=shape).tocsr()
