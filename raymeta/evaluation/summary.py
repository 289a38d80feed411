"""Folds pooled into one result: means with intervals, paired differences, gain and harm.

Users of all folds are pooled (each is a test user once), seeds are averaged per user, and users are
resampled together over methods. The result holds plain values only, ready for JSON; `report` and
`plots` show it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from raymeta.evaluation.bootstrap import LEVEL, NUM_RESAMPLES, interval, resampled_means
from raymeta.evaluation.fold import ALONE, OURS, UNADAPTED, FoldScores
from raymeta.evaluation.gains import gain_distribution, slices
from raymeta.evaluation.metrics import METRICS
from raymeta.evaluation.protocol import COUNTS
from raymeta.seeding import numpy_generator

FORMAT_VERSION = 2

LABELS = {
    OURS: "adapted",
    UNADAPTED: "unadapted",
    ALONE: "trained alone",
    "popularity": "popularity",
    "item_knn": "item-kNN",
    "ease": "EASE",
    "ials": "iALS fold-in",
    "mixture": "popularity + item-kNN",
    "mixture_with_ease": "popularity + item-kNN + EASE",
    "mixture_with_places": "popularity + item-kNN + EASE + places",
    "places": "popularity by place",
    "bm25": "BM25",
    "search_popularity": "popularity of all words' items",
    "text_encoder": "text encoder",
    "text_popularity": "text + popularity",
    "text_knn": "text + popularity + bought + item-kNN",
    "text_knn_features": "the same + features of what was bought",
    "boosting": "gradient boosting",
    "logistic_regression": "logistic regression",
    "user_rate": "user's shrunk rate",
    "item_rate": "item rate",
    "own_rate": "own rate so far",
    "category_rate": "category rate",
    "base_rate": "base rate",
    "item_mean": "item mean",
    "user_item_bias": "user and item bias",
    "rating_factors": "factors, Bayesian fold-in",
    "rating_knn": "item-kNN of ratings",
    "mean_rate": "mean rate",
    "seasonal_naive": "seasonal naive",
    "last_period": "last period",
    "chance": "chance",
    "ceiling": "ceiling",
}
"""What a reader sees, in the order of a table: ours first, the reference lines last."""

Summary = dict[str, Any]


def pool(
    scores: Sequence[FoldScores], columns: Sequence[str] = (*COUNTS, *METRICS)
) -> pd.DataFrame:
    """One row a (method, size, user): the mean over seeds where a user was scored by several."""
    together = pd.concat([part.table for part in scores], ignore_index=True)
    keys = ["method", "size", "user_id"]
    return together.groupby(keys, sort=True, as_index=False)[list(columns)].mean()


def summarise(scores: Sequence[FoldScores], *, seed: int = 0) -> Summary:
    """Everything that a report of a list says of quality.

    Args:
        scores: of all folds, seeds and methods.
        seed: of the resampling.

    Returns:
        `methods` (name -> `coverage_at_10` and one interval a metric, by size), `differences`
        (ours less each other method, paired), `harm_rate` (share of users whose nDCG@10 adapting
        makes worse), `gain` and `slices` (`evaluation.gains`: whom adapting helps), `num_users`,
        by size throughout, and `folds` (the facts of each).
    """
    table = pool(scores)
    result = summarise_metrics(table, METRICS, seed=seed)
    result.update({"harm_rate": {}, "gain": {}, "slices": {}})
    result["folds"] = [part.facts for part in scores if part.facts]
    if {OURS, UNADAPTED} <= set(result["methods"]):
        for size in result["support_sizes"]:
            _summarise_gain(result, table[table["size"] == size], size, seed)
    for name, by_size in result["methods"].items():
        for size, share in _mean_coverage(scores, name).items():
            by_size[str(size)]["coverage_at_10"] = share
    return result


def summarise_metrics(table: pd.DataFrame, metrics: Sequence[str], *, seed: int = 0) -> Summary:
    """Means with intervals and paired differences of what `pool` gives, by size and metric."""
    present = [name for name in LABELS if name in set(table["method"])]
    sizes = sorted(int(size) for size in table["size"].unique())
    result: Summary = {
        "format_version": FORMAT_VERSION,
        "support_sizes": sizes,
        "interval": {"level": LEVEL, "num_resamples": NUM_RESAMPLES, "over": "users"},
        "num_users": {},
        "methods": {name: {} for name in present},
        "differences": {},
    }
    if OURS in present:
        others = [n for n in present if n not in (OURS, "chance", "ceiling")]
        result["differences"] = {name: {} for name in others}
    for size in sizes:
        _summarise_size(result, table[table["size"] == size], metrics, size, seed)
    return result


def _summarise_size(
    result: Summary, table: pd.DataFrame, metrics: Sequence[str], size: int, seed: int
) -> None:
    wide = table.pivot(index="user_id", columns="method", values=list(metrics))
    assert not wide.isna().to_numpy().any(), "every method scores the same users"
    key = str(size)
    result["num_users"][key] = len(wide)
    values = wide.to_numpy(np.float64)
    means = values.mean(axis=0)
    resampled = resampled_means(values, numpy_generator(seed, "bootstrap", size))
    low, high = interval(resampled)
    column: dict[tuple[str, str], int] = {
        (str(pair[0]), str(pair[1])): c for c, pair in enumerate(wide.columns)
    }
    for name, by_size in result["methods"].items():
        by_size[key] = {
            metric: _span(means[c], low[c], high[c])
            for metric in metrics
            for c in [column[metric, name]]
        }
    for name, by_size in result["differences"].items():
        by_size[key] = {}
        for metric in metrics:
            ours, other = column[metric, OURS], column[metric, name]
            paired_low, paired_high = interval(resampled[:, [ours]] - resampled[:, [other]])
            by_size[key][metric] = _span(means[ours] - means[other], paired_low[0], paired_high[0])


def _summarise_gain(result: Summary, table: pd.DataFrame, size: int, seed: int) -> None:
    """What adapting changes for each user of one support size."""
    ndcg = table.pivot(index="user_id", columns="method", values="ndcg_at_10")
    counts = table[table["method"] == OURS].set_index("user_id")[list(COUNTS)]
    gain = (ndcg[OURS] - ndcg[UNADAPTED]).to_numpy(np.float64)
    key = str(size)
    result["harm_rate"][key] = float((gain < 0).mean())
    if size > 0:
        result["gain"][key] = gain_distribution(gain)
        result["slices"][key] = slices(ndcg[[OURS, UNADAPTED]].join(counts), seed=seed)


def best_baseline(result: Summary, size: int, *, metric: str = "ndcg_at_10") -> str | None:
    """The baseline with the highest mean at a support size, if there is any."""
    reference = (OURS, UNADAPTED, ALONE, "chance", "ceiling")
    present = [name for name in LABELS if name in result["methods"] and name not in reference]
    if not present:
        return None
    return max(present, key=lambda name: result["methods"][name][str(size)][metric]["mean"])


def _mean_coverage(scores: Sequence[FoldScores], name: str) -> dict[int, float]:
    """Catalogues differ by fold, so coverage is the mean of theirs."""
    shares = [part.coverage[name] for part in scores if part.coverage.get(name)]
    if not shares:
        return {}
    return {size: float(np.mean([share[size] for share in shares])) for size in shares[0]}


def _span(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": float(mean), "low": float(low), "high": float(high)}
