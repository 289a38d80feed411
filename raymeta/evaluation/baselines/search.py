"""Searches without meta-learning: text, popularity, neighbours and features, by tuned weights.

score = standardised log-popularity + sum over parts of w_p(v) part_p, weights by support size,
found on validation users by coordinate ascent.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymeta.data.catalogue import Catalogue
from raymeta.data.interactions import InteractionMatrix
from raymeta.evaluation.baselines.mixture import standardise
from raymeta.evaluation.baselines.neighbours import ItemNeighbours
from raymeta.evaluation.search import QueryBook, SearchTasks, mean_ndcg
from raymeta.models.field_affinity import FieldAffinity
from raymeta.models.text_match import ALL_WORDS, LEXICAL, MEANING

SEARCH_BASELINES = (
    "bm25",
    "search_popularity",
    "text_encoder",
    "text_popularity",
    "text_knn",
    "text_knn_features",
)
"""In the order of a report."""

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Tried for each part beside standardised log-popularity."""

ROUNDS = 2

KNN_GRID = [
    {"shrink": shrink, "exponent": exponent}
    for shrink, exponent in itertools.product((1, 10, 100, 500), (0.5, 0.6, 0.75, 0.9))
]

Weights = Mapping[int, Sequence[float]]


class SearchParts:
    """What a mixture adds up, for a training set of items with features."""

    def __init__(self, train: InteractionMatrix, catalogue: Catalogue) -> None:
        self._train = train
        index, weight = catalogue.features.index, catalogue.features.weight
        share = torch.from_numpy((train.counts + 1.0) / (train.counts + 1.0).sum())
        self._fields = FieldAffinity.of(
            catalogue.vocab, torch.from_numpy(index), torch.from_numpy(weight), share=share
        )
        self._popularity = torch.from_numpy(standardise(train.log_popularity[None])[0])

    def popularity(self, tasks: SearchTasks, book: QueryBook) -> Tensor:
        """`[N, C]`."""
        return self._popularity[book.candidates[torch.from_numpy(tasks.query)]]

    def text(self, tasks: SearchTasks, book: QueryBook) -> list[Tensor]:
        """Lexical share, all words, cosine: `[N, C]` each."""
        return list(book.match[torch.from_numpy(tasks.query)].unbind(-1))

    def personal(
        self, tasks: SearchTasks, book: QueryBook, neighbours: ItemNeighbours
    ) -> list[Tensor]:
        """1 + log of how often it was bought, and the neighbours' score over its spread."""
        rows = [h.item[h.item >= 0] for h in tasks.supports]
        bought = np.zeros((len(rows), book.num_items), np.float32)
        for row, items in enumerate(rows):
            np.add.at(bought[row], items, 1.0)
        bought = np.where(bought > 0, 1.0 + np.log(np.maximum(bought, 1.0)), 0.0)
        known = np.array([len(items) > 0 for items in rows])[:, None]
        near = standardise(neighbours.score(tasks.supports)) * known
        places = book.candidates[torch.from_numpy(tasks.query)]
        users = torch.from_numpy(tasks.user)[:, None]
        return [torch.from_numpy(part.astype(np.float32))[users, places] for part in (bought, near)]

    def features(self, tasks: SearchTasks, book: QueryBook) -> list[Tensor]:
        """How hits agree with what was bought, by field, and with what of it answers the query."""
        found = []
        for user, query in zip(tasks.user.tolist(), tasks.query.tolist(), strict=True):
            item = tasks.supports[user].item
            bought, count = np.unique(item[item >= 0], return_counts=True)
            rows, weight = torch.from_numpy(bought), torch.from_numpy(1.0 + np.log(count)).float()
            hits, lexical = book.candidates[query], book.match[query][:, LEXICAL]
            of_hits = torch.zeros(book.num_items).index_add(0, rows, weight)[hits]
            among = self._fields.among_hits(of_hits, hits, lexical)
            found.append(torch.cat([self._fields(rows, weight, hits), among], -1))
        return list(torch.stack(found).unbind(-1))

    def neighbours(self, settings: Mapping[str, float]) -> ItemNeighbours:
        """Item-kNN with these settings."""
        return ItemNeighbours(self._train, shrink=settings["shrink"], exponent=settings["exponent"])


class SearchMixture:
    """A mixture with weights by support size; those of a smaller size where one is not there."""

    def __init__(
        self,
        parts: SearchParts,
        weights: Weights,
        *,
        popularity: float = 1.0,
        neighbours: ItemNeighbours | None = None,
        features: bool = False,
    ) -> None:
        self._parts, self._weights, self._neighbours = parts, weights, neighbours
        self._popularity, self._features = popularity, features

    def score(self, tasks: SearchTasks, book: QueryBook) -> Tensor:
        """`[N, C]`."""
        size = max((s for s in self._weights if s <= tasks.size), default=min(self._weights))
        parts = self._parts.text(tasks, book)
        if self._neighbours is not None:
            parts += self._parts.personal(tasks, book, self._neighbours)
        if self._features:
            parts += self._parts.features(tasks, book)
        scores = self._popularity * self._parts.popularity(tasks, book)
        for part, weight in zip(parts, self._weights[size], strict=False):
            scores = scores + weight * part
        return scores


@dataclass(frozen=True)
class TunedSearch:
    """A baseline with the settings that were best on validation.

    Attributes:
        scorer: with those settings.
        settings: what was chosen; weights by support size.
        num_configurations: how many were fitted.
        validation_ndcg: mean over support sizes of nDCG@10 with these settings.
    """

    scorer: SearchMixture
    settings: dict[str, Any]
    num_configurations: int
    validation_ndcg: float

    def facts(self) -> dict[str, Any]:
        """Everything but the scorer, for a report."""
        return {
            "settings": self.settings,
            "num_configurations": self.num_configurations,
            "validation_ndcg_at_10": self.validation_ndcg,
        }


def tune_search(
    name: str, parts: SearchParts, validation: Sequence[SearchTasks], book: QueryBook
) -> TunedSearch:
    """The baseline `name` at its best on validation users."""
    fixed = {
        "bm25": (_one(LEXICAL), 0.0),
        "text_encoder": (_one(MEANING), 0.0),
        # among the items with all words, so the weight of those is above any popularity
        "search_popularity": (_one(ALL_WORDS, 1000.0), 1.0),
    }
    if name in fixed:
        weights, popularity = fixed[name]
        scorer = SearchMixture(parts, {0: weights}, popularity=popularity)
        found = [mean_ndcg(scorer.score(tasks, book), tasks) for tasks in validation]
        return TunedSearch(scorer, {}, 1, float(np.mean(found)))
    text = {t.size: _ascend(parts, t, book, parts.text(t, book), (0, 1, 2)) for t in validation}
    plain = {size: weights for size, (weights, _) in text.items()}
    if name == "text_popularity":
        quality = float(np.mean([score for _, score in text.values()]))
        scorer = SearchMixture(parts, plain)
        return TunedSearch(scorer, {"weights": plain}, len(WEIGHTS), quality)
    mixed = _tune_neighbours(parts, validation, book, plain)
    return mixed if name == "text_knn" else _tune_features(parts, validation, book, mixed)


def _tune_neighbours(
    parts: SearchParts,
    validation: Sequence[SearchTasks],
    book: QueryBook,
    text: Weights,
) -> TunedSearch:
    """The neighbours' settings with their weights, then all weights once more."""

    def tried(settings: Mapping[str, float], free: Sequence[int], start: Weights) -> Any:
        neighbours = parts.neighbours(settings)
        return {
            t.size: _ascend(
                parts,
                t,
                book,
                parts.text(t, book) + parts.personal(t, book, neighbours),
                free,
                start[t.size],
            )
            for t in validation
        }

    begun = {size: (*weights, 0.0, 0.0) for size, weights in text.items()}
    found = [tried(settings, (3, 4), begun) for settings in KNN_GRID]
    means = [float(np.mean([score for _, score in by_size.values()])) for by_size in found]
    chosen = int(np.argmax(means))
    start = {size: weights for size, (weights, _) in found[chosen].items()}
    last = tried(KNN_GRID[chosen], (0, 1, 2, 3, 4), start)
    weights = {size: w for size, (w, _) in last.items()}
    quality = float(np.mean([score for _, score in last.values()]))
    scorer = SearchMixture(parts, weights, neighbours=parts.neighbours(KNN_GRID[chosen]))
    settings = {"item_knn": KNN_GRID[chosen], "weights": weights}
    return TunedSearch(scorer, settings, len(KNN_GRID), quality)


def _tune_features(
    parts: SearchParts, validation: Sequence[SearchTasks], book: QueryBook, mixed: TunedSearch
) -> TunedSearch:
    """The features' weights beside those of a mixture, then all once more."""
    settings, tuned = mixed.settings["item_knn"], {}
    neighbours = parts.neighbours(settings)
    for tasks in validation:
        values = parts.text(tasks, book) + parts.personal(tasks, book, neighbours)
        known = len(values)
        values += parts.features(tasks, book)
        begun = (*mixed.settings["weights"][tasks.size], *[0.0] * (len(values) - known))
        features = range(known, len(values))
        found, _ = _ascend(parts, tasks, book, values, features, begun)
        tuned[tasks.size] = _ascend(parts, tasks, book, values, range(len(values)), found)
    weights = {size: found for size, (found, _) in tuned.items()}
    quality = float(np.mean([score for _, score in tuned.values()]))
    scorer = SearchMixture(parts, weights, neighbours=neighbours, features=True)
    settings = {"item_knn": settings, "weights": weights}
    return TunedSearch(scorer, settings, mixed.num_configurations + 1, quality)


def _ascend(
    mix: SearchParts,
    tasks: SearchTasks,
    book: QueryBook,
    parts: Sequence[Tensor],
    free: Sequence[int],
    start: Sequence[float] | None = None,
) -> tuple[tuple[float, ...], float]:
    """Coordinate ascent over the weights `free`; a smaller weight wins a tie."""
    weights = list(start) if start is not None else [8.0] * len(parts)
    popularity = mix.popularity(tasks, book)

    def scores(changed: int | None = None) -> Tensor:
        total = popularity.clone()
        for index, part in enumerate(parts):
            if index != changed:
                total.add_(part, alpha=weights[index])
        return total

    best = mean_ndcg(scores(), tasks)
    for _ in range(ROUNDS):
        for changed in free:
            rest = scores(changed)
            for weight in WEIGHTS:
                found = mean_ndcg(torch.add(rest, parts[changed], alpha=weight), tasks)
                if found > best:
                    best, weights[changed] = found, weight
    return tuple(weights), best


def _one(part: int, weight: float = 1.0) -> tuple[float, ...]:
    return tuple(weight if index == part else 0.0 for index in range(3))
