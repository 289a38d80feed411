"""Searching: a query's hits in the order of what a user buys of them later."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.config.experiment import ExperimentConfig
from raymeta.config.scenario import SearchConfig
from raymeta.data.episodes import num_units
from raymeta.data.events import History, support_from_events, with_own_items
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import ConfigError, DataError
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.baselines.search import SEARCH_BASELINES, SearchParts, tune_search
from raymeta.evaluation.fold import OURS, UNADAPTED, EvaluationSettings, FoldScores, collect
from raymeta.evaluation.report import write_report
from raymeta.evaluation.scenarios.base import Measure, Note, ScenarioKind, Summary, Sums, TextTable
from raymeta.evaluation.scenarios.recommend import text_tables as recommend_tables
from raymeta.evaluation.search import (
    AdaptedSearch,
    QueryBook,
    SearchTasks,
    cut_searches,
    mean_ndcg,
    score_searches,
    search_reference_lines,
)
from raymeta.evaluation.summary import summarise
from raymeta.evaluation.tables import METRIC_TITLES, quality_rows
from raymeta.types import Examples, Params, TaskBatch


class Search:
    """Tasks of queries, judged by the first ten hits.

    Args:
        experiment: unit of support, positive events, how queries are made.
        split: the users.
    """

    def __init__(self, experiment: ExperimentConfig, split: TaskSplit) -> None:
        if not isinstance(experiment.scenario, SearchConfig):
            raise ConfigError(
                f"The scenario is {experiment.scenario.name}, not search.",
                remedy="Set scenario.name: search.",
            )
        self._unit, self._split, self._config = experiment.data.unit, split, experiment.scenario
        self._book = QueryBook(split.catalogue, experiment.scenario)

    def num_units(self, history: History) -> int:
        return num_units(history, unit=self._unit, positive_types=self._split.positive_types)

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        positive = self._split.positive_types
        supports, queries = [], []
        for history, size in zip(histories, sizes, strict=True):
            support, asked, bought = self._book.asked_later(
                history,
                size,
                unit=self._unit,
                positive_types=positive,
                repeat=self._config.repeat,
            )
            supports.append(support)
            queries.append(self._queries(asked, bought))
        view = self._split.view
        rows = with_own_items(support_from_events(supports, view), histories, positive, view)
        return TaskBatch(rows, {n: torch.stack([q[n] for q in queries]) for n in queries[0]})

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        tasks = self._tasks(users, sizes, repeat=self._config.repeat)

        def measure(algorithm: Adapts, params: Params) -> dict[int, Sums]:
            scorer = AdaptedSearch(algorithm, params, view=self._split.view)
            found = {}
            for sized in tasks:
                count = len(sized.supports)
                quality = mean_ndcg(scorer.score(sized, self._book), sized)
                found[sized.size] = Sums(quality * count, float(count))
            return found

        return measure

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        tasks = self._test(settings)
        view = self._split.view
        scorers = {
            OURS: AdaptedSearch(algorithm, meta_params, view=view),
            UNADAPTED: AdaptedSearch(algorithm, meta_params, view=view, forget=True),
        }
        methods = {name: score_searches(s, tasks, self._book) for name, s in scorers.items()}
        return collect(methods, self._split.test.user_ids, {})

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        split, tasks = self._split, self._test(settings)
        train = InteractionMatrix.from_histories(
            split.train.histories,
            num_items=len(split.catalogue),
            positive_types=split.positive_types,
        )
        validation = self._tasks(
            split.validation, settings.support_sizes, unit=settings.unit, repeat=settings.repeat
        )
        methods = dict(search_reference_lines(tasks, self._book))
        parts, tuned = SearchParts(train, split.catalogue), {}
        for name in settings.baselines:
            note(f"Tuning {name.replace('_', ' ')}")
            found = tune_search(name, parts, validation, self._book)
            tuned[name] = found.facts()
            methods[name] = score_searches(found.scorer, tasks, self._book)
        facts = {
            "tuned": tuned,
            "left_out": {},
            "num_items": len(split.catalogue),
            "num_queries": len(self._book.queries.texts),
            "dataset_sha256": split.dataset_sha256,
            "num_users": {p: len(getattr(split, p)) for p in ("train", "validation", "test")},
            "num_tasks": {str(t.size): len(t.supports) for t in tasks},
            "num_outside": {str(t.size): t.num_outside for t in tasks},
            "num_searches": {str(t.size): len(t.user) for t in tasks},
        }
        return collect(methods, split.test.user_ids, facts)

    def _test(self, settings: EvaluationSettings) -> list[SearchTasks]:
        return self._tasks(
            self._split.test, settings.support_sizes, unit=settings.unit, repeat=settings.repeat
        )

    def _tasks(
        self, users: UserTasks, sizes: Sequence[int], *, repeat: bool, unit: str | None = None
    ) -> list[SearchTasks]:
        tasks = []
        for size in sizes:
            try:
                tasks.append(
                    cut_searches(
                        users.histories,
                        size,
                        self._book,
                        unit="items" if (unit or self._unit) == "items" else "visits",
                        positive_types=self._split.positive_types,
                        repeat=repeat,
                    )
                )
            except DataError:
                continue  # no user of this worker counts at this size; the others' may
        return tasks

    def _queries(self, asked: Sequence[int], bought: Sequence[NDArray[np.int64]]) -> Examples:
        """One training task's queries, padded; one without a hit that was bought is left out."""
        book = self._book
        rows: list[int] = []
        relevant: list[torch.Tensor] = []
        for query, items in zip(asked, bought, strict=True):
            found = book.relevant(query, items)
            if bool(found.any()) and len(rows) < self._config.train_queries:
                rows.append(query)
                relevant.append(found.float())
        missing = self._config.train_queries - len(rows)
        padded = torch.tensor([*rows, *[0] * missing])
        relevant += [torch.zeros(book.candidates.shape[1])] * missing
        return {
            "candidates": book.candidates[padded],
            "match": book.match[padded],
            "relevant": torch.stack(relevant),
            "asked": torch.tensor([True] * len(rows) + [False] * missing),
        }


def search_tables(result: Summary) -> tuple[list[TextTable], list[str]]:
    """As for recommending, with MRR in the place of recall."""
    (quality, _, *rest), lines = recommend_tables(result)
    title = f"{METRIC_TITLES['mrr']} of new users after so many {result['protocol']['unit']}"
    reciprocal = replace(quality, title=title, rows=quality_rows(result, "mrr"))
    return [quality, reciprocal, *rest], lines


SEARCH = ScenarioKind(Search, SEARCH_BASELINES, summarise, write_report, search_tables)
