"""Searches of new users: the hits of a query in order, judged by what is bought of them later.

A user's history is cut after its first v visits. What comes later is a list of queries in the order
of time (of one visit, by a hash: rows of a basket have no order), each with the items that answer
it and are bought later. The hits are the catalogue's items that match the query best by text, and
so the same for every method; an item bought later that is not among them is missed by all.
Metrics are means over a user's queries. How a query is made of items is `data.queries`'s.

Shapes: T users of a size, N their queries together, C hits of a query, P parts of a text match.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymeta.config.scenario import SearchConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.episodes import Unit, cut
from raymeta.data.events import History, SupportView, support_from_events
from raymeta.data.queries import ItemQueries, queries_of_items
from raymeta.errors import DataError
from raymeta.evaluation.adapted import USERS_PER_BATCH, Adapts
from raymeta.evaluation.metrics import (
    CUTOFF,
    METRICS,
    RECALL_CUTOFF,
    chance,
    coverage,
    hit_rate,
    hits,
    ndcg,
    recall,
    reciprocal_rank,
    top_k,
)
from raymeta.evaluation.protocol import Scored
from raymeta.models.personal_search import QUERY_MATCH
from raymeta.models.text_encoder import encoder_named
from raymeta.models.text_match import TextMatcher
from raymeta.seeding import hash_fraction
from raymeta.types import Params

QUERIES_PER_BATCH = 512


class QueryBook:
    """The queries of a catalogue with their hits.

    Args:
        catalogue: whose items are asked for.
        config: how queries are made and matched.
    """

    def __init__(self, catalogue: Catalogue, config: SearchConfig) -> None:
        self.config = config
        self.num_items = len(catalogue)
        self.queries: ItemQueries = queries_of_items(
            catalogue.items,
            config.query_columns,
            last_words=config.query_last_words,
            min_items=config.min_query_items,
        )
        if not self.queries.texts:
            raise DataError(
                f"No query is answered by {config.min_query_items} items or more.",
                remedy="Lower scenario.min_query_items, or check scenario.query_columns.",
            )
        self.matcher = TextMatcher.of(
            catalogue.items, config.text_columns, encoder=encoder_named(config.encoder)
        )
        self.matcher.prepare(self.queries.texts)
        best = [self.matcher.best(text, config.num_candidates) for text in self.queries.texts]
        matches = zip(self.queries.texts, best, strict=True)
        self.candidates = torch.stack(best)
        self.match = torch.stack([self.matcher.match(text)[items] for text, items in matches])
        self._rank = np.array([hash_fraction("query", text) for text in self.queries.texts])

    def asked_later(
        self,
        history: History,
        size: int,
        *,
        unit: Unit,
        positive_types: Sequence[int],
        repeat: bool,
    ) -> tuple[History, list[int], list[NDArray[np.int64]]]:
        """The support, the next queries in the order of time, and what is bought of each."""
        support, found = cut(history, size, unit=unit, positive_types=positive_types, repeat=repeat)
        later = history.where(slice(len(support), None))
        wanted = np.isin(later.event_type, positive_types) & np.isin(later.item, found)
        query = self.queries.of_item[later.item]
        rows = np.flatnonzero(wanted & (query >= 0))
        order = rows[np.lexsort((self._rank[query[rows]], later.timestamp_ms[rows]))]
        asked = list(dict.fromkeys(query[order].tolist()))[: self.config.max_queries]
        return support, asked, [np.unique(later.item[rows[query[rows] == q]]) for q in asked]

    def relevant(self, query: int, items: NDArray[np.int64]) -> Tensor:
        """Which of a query's hits are `items`, bool `[C]`."""
        return torch.isin(self.candidates[query], torch.from_numpy(items))


@dataclass(frozen=True)
class SearchTasks:
    """The users that count at one support size, with their queries.

    Attributes:
        user_rows: `[T]` positions in the list of users.
        supports: of each user.
        user: the task of each query, `[N]` ascending.
        query: rows of the book, `[N]`.
        relevant: which hits are bought later, bool `[N, C]`.
        num_relevant: how many items of the query are, hits or not, `[N]`.
        num_outside: later positive events on items outside the catalogue or without a query.
    """

    size: int
    user_rows: NDArray[np.int64]
    supports: list[History]
    user: NDArray[np.int64]
    query: NDArray[np.int64]
    relevant: Tensor
    num_relevant: Tensor
    num_outside: int


def cut_searches(
    histories: Sequence[History],
    size: int,
    book: QueryBook,
    *,
    unit: Unit,
    positive_types: Sequence[int],
    repeat: bool,
) -> SearchTasks:
    """The tasks of one support size.

    Raises:
        DataError: no user has a query left.
    """
    supports: list[History] = []
    relevant: list[Tensor] = []
    rows: list[int] = []
    users: list[int] = []
    queries: list[int] = []
    counts: list[int] = []
    outside = 0
    for row, history in enumerate(histories):
        support, asked, bought = book.asked_later(
            history, size, unit=unit, positive_types=positive_types, repeat=repeat
        )
        later = history.where(slice(len(support), None))
        positive = later.item[np.isin(later.event_type, positive_types)]
        outside += int(((positive < 0) | (book.queries.of_item[positive] < 0)).sum())
        if not asked:
            continue
        users += [len(rows)] * len(asked)
        rows.append(row)
        supports.append(support)
        queries += asked
        relevant += [book.relevant(q, items) for q, items in zip(asked, bought, strict=True)]
        counts += [len(items) for items in bought]
    if not rows:
        raise DataError(
            f"No user has a query after {size} {unit}.",
            remedy="Leave this support size out, or evaluate on more users.",
        )
    return SearchTasks(
        size,
        np.array(rows, np.int64),
        supports,
        np.array(users, np.int64),
        np.array(queries, np.int64),
        torch.stack(relevant),
        torch.tensor(counts),
        outside,
    )


class SearchScorer(Protocol):
    """Anything that orders the hits of queries for users known by their events."""

    def score(self, tasks: SearchTasks, book: QueryBook) -> Tensor:
        """Scores of every query's hits, `[N, C]`; no NaN."""
        ...


class AdaptedSearch:
    """A meta-learner after adapting to each user's support, or to nothing.

    Args:
        forget: adapt to an empty support instead.
    """

    def __init__(
        self, algorithm: Adapts, meta_params: Params, *, view: SupportView, forget: bool = False
    ) -> None:
        self._algorithm, self._params, self._view = algorithm, meta_params, view
        self._forget = forget

    def score(self, tasks: SearchTasks, book: QueryBook) -> Tensor:
        parts = []
        for start in range(0, len(tasks.supports), USERS_PER_BATCH):
            supports = tasks.supports[start : start + USERS_PER_BATCH]
            if self._forget:
                supports = [History.empty(h.features) for h in supports]
            state = self._algorithm.adapt(self._params, support_from_events(supports, self._view))
            first, last = np.searchsorted(tasks.user, [start, start + len(supports)])
            for begin in range(first, last, QUERIES_PER_BATCH):
                some = slice(begin, min(begin + QUERIES_PER_BATCH, last))
                users, queries = tasks.user[some] - start, tasks.query[some]
                asking = {name: value[users] for name, value in state.items()}
                asking[QUERY_MATCH] = book.match[queries]
                parts.append(self._score(asking, book.candidates[queries]))
        return torch.cat(parts)

    def _score(self, state: Params, candidates: Tensor) -> Tensor:
        return self._algorithm.score(self._params, state, candidates).float()


def score_searches(scorer: SearchScorer, tasks: Sequence[SearchTasks], book: QueryBook) -> Scored:
    """Orders the hits of every query and measures each user."""
    frames, covered = [], {}
    for sized in tasks:
        scores = scorer.score(sized, book)
        values, ranked = query_metrics(scores, sized)
        frames.append(_by_user(sized, values))
        items = book.candidates[torch.from_numpy(sized.query)].gather(1, ranked.clamp(min=0))
        covered[sized.size] = coverage(items, book.num_items)
    return Scored(pd.concat(frames, ignore_index=True), covered)


def query_metrics(scores_NC: Tensor, tasks: SearchTasks) -> tuple[dict[str, Tensor], Tensor]:
    """All of `METRICS`, each `[N]`, and the first ten hits `[N, 10]`."""
    ranked = top_k(scores_NC, max(CUTOFF, RECALL_CUTOFF))
    hit = hits(ranked, tasks.relevant)
    found = tasks.relevant.any(1)
    first = reciprocal_rank(scores_NC, tasks.relevant | ~found[:, None])
    values = {
        "ndcg_at_10": ndcg(hit, tasks.num_relevant),
        "recall_at_20": recall(hit, tasks.num_relevant),
        "mrr": torch.where(found, first, 0.0),
        "hit_rate_at_10": hit_rate(hit),
    }
    return values, ranked[:, :CUTOFF]


def mean_ndcg(scores_NC: Tensor, tasks: SearchTasks) -> float:
    """nDCG@10, a mean over users of their means over queries."""
    values = ndcg(hits(top_k(scores_NC, CUTOFF), tasks.relevant), tasks.num_relevant).numpy()
    weight = 1.0 / np.bincount(tasks.user)[tasks.user]
    return float((values * weight).sum() / len(tasks.supports))


def search_reference_lines(tasks: Sequence[SearchTasks], book: QueryBook) -> dict[str, Scored]:
    """`chance` (the hits in a random order) and `ceiling` (what was bought on top)."""
    frames: dict[str, list[pd.DataFrame]] = {"chance": [], "ceiling": []}
    num_hits = book.candidates.shape[1]
    for sized in tasks:
        found = sized.relevant.sum(1)
        expected = chance(found.clamp(min=1).numpy(), np.full(len(found), num_hits))
        some = (found > 0).numpy()
        scale = {
            "ndcg_at_10": _ideal(found.clamp(min=1)) / _ideal(sized.num_relevant),
            "recall_at_20": (found / sized.num_relevant).double(),
        }
        values = {
            name: torch.from_numpy(value * some) * scale.get(name, 1.0)
            for name, value in expected.items()
        }
        frames["chance"].append(_by_user(sized, values))
        best, _ = query_metrics(sized.relevant.float(), sized)
        frames["ceiling"].append(_by_user(sized, best))
    return {name: Scored(pd.concat(parts, ignore_index=True), {}) for name, parts in frames.items()}


def _ideal(num_relevant_N: Tensor) -> Tensor:
    gains = 1.0 / torch.log2(torch.arange(2, CUTOFF + 2, dtype=torch.float64))
    return gains.cumsum(0)[num_relevant_N.clamp(max=CUTOFF) - 1]


def _by_user(tasks: SearchTasks, values: dict[str, Tensor]) -> pd.DataFrame:
    """A row a user: `size`, `user_row`, counts, means over its queries."""
    table = pd.DataFrame({name: values[name].double().numpy() for name in METRICS})
    means = table.groupby(tasks.user).mean()
    known = [len(np.unique(h.item[h.item >= 0])) for h in tasks.supports]
    counts = pd.DataFrame(
        {
            "size": tasks.size,
            "user_row": tasks.user_rows,
            "num_known": known,
            "num_later": np.bincount(tasks.user, weights=tasks.num_relevant.numpy()).astype(int),
        }
    )
    return pd.concat([counts, means.reset_index(drop=True)], axis=1)
