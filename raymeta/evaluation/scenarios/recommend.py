"""Recommending: the whole catalogue is ranked for what a user does later (protocol P1)."""

from collections.abc import Sequence

from raymeta.config.experiment import ExperimentConfig
from raymeta.config.scenario import RecommendConfig
from raymeta.data.episodes import cut, latest_values, num_units
from raymeta.data.events import (
    History,
    pad_items,
    support_from_events,
    with_own_items,
)
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import DataError
from raymeta.evaluation.adapted import AdaptedScorer, Adapts
from raymeta.evaluation.fold import EvaluationSettings, FoldScores, score_adapted, score_baselines
from raymeta.evaluation.protocol import Tasks, cut_tasks, score_tasks
from raymeta.evaluation.report import write_report
from raymeta.evaluation.scenarios.base import (
    Measure,
    Note,
    ScenarioKind,
    Summary,
    Sums,
    TextTable,
)
from raymeta.evaluation.summary import summarise
from raymeta.evaluation.tables import METRIC_TITLES, difference_rows, quality_rows
from raymeta.evaluation.tuning import BASELINES
from raymeta.types import Params, TaskBatch


class Recommend:
    """Tasks cut by visits or items, judged by a list of ten.

    Args:
        experiment: unit of support, positive events, whether items repeat.
        split: the users.
    """

    def __init__(self, experiment: ExperimentConfig, split: TaskSplit) -> None:
        self._unit, self._split = experiment.data.unit, split
        scenario = experiment.scenario
        self._repeat = isinstance(scenario, RecommendConfig) and scenario.repeat

    def num_units(self, history: History) -> int:
        return num_units(history, unit=self._unit, positive_types=self._split.positive_types)

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        positive = self._split.positive_types
        supports, queries, values = [], [], []
        for history, size in zip(histories, sizes, strict=True):
            support, query = cut(
                history, size, unit=self._unit, positive_types=positive, repeat=self._repeat
            )
            supports.append(support)
            queries.append(query)
            values.append(latest_values(history, query))
        view = self._split.view
        rows = with_own_items(support_from_events(supports, view), histories, positive, view)
        return TaskBatch(rows, pad_items(queries, values))

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        num_items = len(self._split.catalogue)
        tasks: list[Tasks] = []
        for size in sizes:
            try:
                tasks += cut_tasks(
                    users,
                    [size],
                    unit=self._unit,
                    positive_types=self._split.positive_types,
                    repeat=self._repeat,
                )
            except DataError:
                continue  # no user of this worker counts at this size; the others' may

        def measure(algorithm: Adapts, params: Params) -> dict[int, Sums]:
            scorer = AdaptedScorer(algorithm, params, view=self._split.view)
            scored = score_tasks(scorer, tasks, num_items=num_items).users
            by_size = scored.groupby("size")["ndcg_at_10"]
            total, count = by_size.sum(), by_size.count()
            return {
                sized.size: Sums(float(total[sized.size]), float(count[sized.size]))
                for sized in tasks
            }

        return measure

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        return score_adapted(algorithm, meta_params, self._split, settings)

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        return score_baselines(self._split, settings, note=note)


def text_tables(result: Summary) -> tuple[list[TextTable], list[str]]:
    """nDCG@10, Recall@20 and the paired differences, and whom adapting makes worse."""
    unit, sizes = result["protocol"]["unit"], result["support_sizes"]
    tables = [
        TextTable(
            f"{METRIC_TITLES[metric]} of new users after so many {unit}",
            sizes,
            quality_rows(result, metric),
        )
        for metric in ("ndcg_at_10", "recall_at_20")
    ]
    known = [size for size in sizes if size > 0]
    if result["differences"] and known:
        title = "nDCG@10: adapted less each other method, paired by user; bold where clear of zero"
        rows = difference_rows(result, known, marks=("[bold]", "[/bold]"))
        tables.append(TextTable(title, known, rows))
    lines = []
    if result["harm_rate"]:
        worst = max(result["harm_rate"].items(), key=lambda pair: pair[1])
        lines.append(
            f"Adapting makes at most {worst[1]:.1%} of users worse (after {worst[0]} {unit})."
        )
    return tables, lines


RECOMMEND = ScenarioKind(Recommend, BASELINES, summarise, write_report, text_tables)
