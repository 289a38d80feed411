"""What a scenario is to training and evaluation, which know no more of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raymeta.config.experiment import ExperimentConfig
from raymeta.data.events import History
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.fold import EvaluationSettings, FoldScores
from raymeta.types import Params, TaskBatch

Summary = dict[str, Any]
Note = Callable[[str], None]


class Sums(NamedTuple):
    """A metric's sum over what was judged, and how much that was; sums of workers add up."""

    total: float
    weight: float


Measure = Callable[[Adapts, Params], Mapping[int, Sums]]
"""A learner as it is served -> the validation metric by support size."""


class Scenario(Protocol):
    """One scenario over the users of one split."""

    def num_units(self, history: History) -> int:
        """How many units of support a history has, the last of them included."""
        ...

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        """Training tasks: each history cut after so many units of support."""
        ...

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        """Makes validation users ready to be measured often. A size at which none of them has
        anything to be judged on has no sums: the users of another worker may."""
        ...

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        """Scores a meta-learner on the test users, adapted and not."""
        ...

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        """Tunes the baselines on validation users and scores them on the test users."""
        ...


@dataclass(frozen=True)
class TextTable:
    """A table for a terminal: a row's label, then a cell a support size."""

    title: str
    sizes: Sequence[int]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class ScenarioKind:
    """What is known of a scenario without data.

    Attributes:
        open: the scenario of an experiment over a split.
        baselines: names of its baselines, in the order of a table.
        summarise: folds pooled into one result of plain values.
        write_report: the result's files, into a folder.
        text_tables: what a terminal shows of a result, and lines after it.
    """

    open: Callable[[ExperimentConfig, TaskSplit], Scenario]
    baselines: tuple[str, ...]
    summarise: Callable[[Sequence[FoldScores]], Summary]
    write_report: Callable[[Summary, Sequence[FoldScores], Path], None]
    text_tables: Callable[[Summary], tuple[Sequence[TextTable], Sequence[str]]]
