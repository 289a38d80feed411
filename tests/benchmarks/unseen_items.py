"""Items that training never saw: how well they are recommended by their features alone.

A fifth of the catalogue is held out of everything: co-occurrences, item vectors, the encoder's fit.
The recommender (its start, no outer steps) then gets these items by `Artifact.with_items`, and new
users are adapted on their events on the other items. Only held-out items are ranked; what the user
buys later among them is to be found.

    python tests/benchmarks/unseen_items.py tune_configs/experiments/complete_journey.yaml DATA

    trained   the bar: the same model with these items in training, so by their own co-occurrences
    encoder   vectors and priors by features
    prior     the encoder's priors alone: what of such items sells
    match     cosine between the features of an item and those of the user's events
    chance    the expectation of a random order
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from raymeta.artifact import Artifact, load_artifact, save_artifact
from raymeta.config.base import load_settings
from raymeta.config.build import build_algorithm
from raymeta.config.experiment import ExperimentConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.events import History
from raymeta.data.features import FeatureVocab
from raymeta.data.interactions import support_indicator
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.evaluation.adapted import AdaptedScorer, UnadaptedScorer
from raymeta.evaluation.bootstrap import interval, resampled_means
from raymeta.evaluation.metrics import CUTOFF, chance, hits, ndcg, top_k
from raymeta.evaluation.protocol import Scorer, cut_tasks
from raymeta.seeding import hash_fraction

HELD_OUT = 0.2
SIZES = (0, 1, 3, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = load_settings(ExperimentConfig, options.experiment)
    found: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
    agreements: dict[int, list[NDArray[np.float64]]] = {}
    for fold in range(options.folds):
        split_config = experiment.data.split.model_copy(update={"fold": fold})
        data = experiment.data.model_copy(update={"split": split_config})
        split = load_task_split(options.data, data)
        measure(experiment.model_copy(update={"data": data}), split, found, agreements)
    print("nDCG@10 among held-out items (95%), after v visits")
    for (name, size), parts in found.items():
        values = np.concatenate(parts)
        low, high = interval(resampled_means(values[:, None], np.random.default_rng(0)))
        print(f"{name:8} v={size:<2} {values.mean():.3f} ({low[0]:.3f}..{high[0]:.3f})")
    for size, parts in agreements.items():
        values = np.concatenate(parts)
        print(f"rank correlation of encoder and trained over held-out items, v={size}: ", end="")
        print(f"{values.mean():.3f} (mean over {len(values)} users)")


def measure(
    experiment: ExperimentConfig,
    split: TaskSplit,
    found: dict[tuple[str, int], list[NDArray[np.float64]]],
    agreements: dict[int, list[NDArray[np.float64]]],
) -> None:
    """Adds the test users of one fold, nDCG@10 by (method, size) and rank correlations by size."""
    ids = split.catalogue.item_ids
    held = np.array([hash_fraction("unseen", item_id) < HELD_OUT for item_id in ids])
    # the catalogue in the order that the extended artifact has: known items, then held-out ones
    order = np.argsort(held, kind="stable")
    whole = reordered(split, order)
    num_known = int((~held).sum())
    encoded = started(experiment, reordered(split, order[:num_known]))
    added = whole.catalogue.items.slice(num_known)
    artifact = encoded.with_items(added)
    assert artifact.item_encoder is not None
    for name, value in artifact.item_encoder.explained.items():
        penalty = artifact.item_encoder.penalties[name]
        print(f"{name}: R2 {value:.3f} on items held out of the fit, penalty {penalty:g}")
    print(f"{num_known} items in training, {len(ids) - num_known} held out", flush=True)
    bar = started(experiment, whole)
    view = artifact.view
    scorers: dict[str, Scorer] = {
        "trained": AdaptedScorer(bar.algorithm, bar.meta_params, view=view),
        "encoder": AdaptedScorer(artifact.algorithm, artifact.meta_params, view=view),
        "prior": UnadaptedScorer(artifact.algorithm, artifact.meta_params, view=view),
        "match": FeatureMatch(encoded.catalogue, whole.catalogue),
    }
    tasks = cut_tasks(whole.test, SIZES, unit="visits", positive_types=split.positive_types)
    for sized in tasks:
        bought = sized.relevant(len(ids))[:, num_known:]
        seen = sized.masked(len(ids))[:, num_known:]
        counted = bought.any(1)
        # a user's events on held-out items are kept from every method
        supports = [h.where(h.item < num_known) for h in sized.supports]
        ranked: dict[str, NDArray[np.float64]] = {}
        for name, scorer in scorers.items():
            scores = torch.from_numpy(scorer.score(supports))[:, num_known:]
            top = top_k(scores.masked_fill(seen, -torch.inf), CUTOFF)
            values = ndcg(hits(top, bought), bought.sum(1).clamp(min=1))
            found.setdefault((name, sized.size), []).append(values[counted].numpy())
            ranked[name] = rankdata(scores.numpy(), axis=1)
        expected = chance(bought.sum(1)[counted].numpy(), (~seen).sum(1)[counted].numpy())
        found.setdefault(("chance", sized.size), []).append(expected["ndcg_at_10"])
        agreements.setdefault(sized.size, []).append(
            correlation(ranked["encoder"], ranked["trained"])
        )


def reordered(split: TaskSplit, rows: NDArray[np.int64]) -> TaskSplit:
    """The split with only the items at `rows` of its catalogue, in that order."""
    items = split.catalogue.items.take(rows)
    kinds = split.catalogue.kinds
    catalogue = Catalogue(items, kinds, FeatureVocab.count(items, kinds))
    ids = np.asarray(split.catalogue.item_ids, np.str_)
    parts = ("train", "validation", "test", "locked")
    local = {name: catalogue.localise(getattr(split, name), ids) for name in parts}
    return replace(split, catalogue=catalogue, **local)


def started(experiment: ExperimentConfig, split: TaskSplit) -> Artifact:
    """The artifact of an experiment without outer steps."""
    algorithm = build_algorithm(experiment, split)
    with tempfile.TemporaryDirectory() as folder:
        path = save_artifact(
            Path(folder) / "artifact",
            experiment=experiment,
            split=split,
            algorithm=algorithm,
            meta_params=algorithm.init(torch.Generator().manual_seed(0)),
            metrics={},
        )
        return load_artifact(path)


class FeatureMatch:
    """Scores items by the cosine of their features and the sum of those of the user's items."""

    def __init__(self, known: Catalogue, whole: Catalogue) -> None:
        vocab = known.vocab
        rows = vocab.encode(whole.items).matrix(vocab.num_rows)
        # a value that many items have says little of a taste
        weight = np.log(len(known) / (1.0 + np.bincount(rows.indices, minlength=vocab.num_rows)))
        self._features = rows.multiply(np.maximum(weight, 0.0)[None, :]).tocsr()
        norms = np.sqrt(np.asarray(self._features.multiply(self._features).sum(1)).ravel())
        self._norms = np.maximum(norms, 1e-9)

    def score(self, histories: Sequence[History]) -> NDArray[np.float32]:
        tastes = support_indicator(histories, len(self._norms)) @ self._features
        scores = (tastes @ self._features.T).toarray() / self._norms
        return scores.astype(np.float32)


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of each row."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


if __name__ == "__main__":
    main()
