"""Purchase intent: will a user buy in a category within the horizon, and how many users will."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from raymeta.config.experiment import ExperimentConfig
from raymeta.data.episodes import num_units
from raymeta.data.events import History, pad_asked, support_from_events
from raymeta.data.moments import cut_moments
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import DataError
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.baselines.intents import BASELINES, IntentColumns, tuned_baselines
from raymeta.evaluation.demand import (
    Method,
    cut_periods,
    forecast,
    naive_forecasts,
    summarise_demand,
)
from raymeta.evaluation.fold import OURS, UNADAPTED, EvaluationSettings, FoldScores
from raymeta.evaluation.intents import TARGET, CutIntents, cut_after_visits, end_of, predicted
from raymeta.evaluation.labelled import log_losses, method_rows
from raymeta.evaluation.pointwise import Judged, summarise
from raymeta.evaluation.pointwise_report import text_tables, write_report
from raymeta.evaluation.scenarios.base import Measure, Note, ScenarioKind, Summary, Sums
from raymeta.types import Params, TaskBatch

JUDGED = Judged(
    targets=(TARGET,),
    unit="visits",
    curve=f"{TARGET}_log_loss",
    about=(
        "Known of a user: the first v visits, and, at a moment before the next basket, that none "
        "has come since. Judged: for each category, the probability that the user buys in it "
        "within the horizon after the moment. Moments whose horizon reaches past the end of the "
        "log are left out."
    ),
)


class Intent:
    """Tasks cut by visits, judged by the probabilities at the moments until the next basket.

    Args:
        experiment: unit of support; what is asked about is in the split's view.
        split: the users.
    """

    def __init__(self, experiment: ExperimentConfig, split: TaskSplit) -> None:
        self._unit, self._split = experiment.data.unit, split
        self._end_ms = end_of(split.train)

    def num_units(self, history: History) -> int:
        """One more than the visits: that none follows the last is to be predicted as well."""
        types = self._split.positive_types
        return 1 + num_units(history, unit=self._unit, positive_types=types)

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        view = self._split.view
        pairs = [
            cut_moments(history, [size], view=view, end_ms=self._end_ms)[0]
            for history, size in zip(histories, sizes, strict=True)
        ]
        support = support_from_events([support for support, _ in pairs], view)
        return TaskBatch(support, pad_asked([asked for _, asked in pairs]))

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        split, train = self._split, self._split.train
        cuts = cut_after_visits(users, sizes, split.view, end_ms=end_of(split.validation))
        known = cut_after_visits(train, sizes, split.view, end_ms=self._end_ms)
        columns = IntentColumns(split, known)
        chance = {
            cut.size: log_losses(cut.labels, columns.rate(np.full(len(cut.labels), cut.size)))
            for cut in cuts
        }

        def measure(algorithm: Adapts, params: Params) -> dict[int, Sums]:
            found = {}
            for cut in cuts:
                p = predicted(algorithm, params, cut, split.view)  # type: ignore[arg-type]
                base = chance[cut.size]
                gains = (base - log_losses(cut.labels, p)) / base.mean()
                found[cut.size] = Sums(float(gains.sum()), float(gains.size))
            return found

        return measure

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        view = self._split.view
        methods: dict[str, Method] = {
            name: partial(predicted, algorithm, meta_params, view=view, adapted=adapted)  # type: ignore[arg-type]
            for name, adapted in ((OURS, True), (UNADAPTED, False))
        }
        demand = forecast(cut_periods(self._split.test, view), methods)
        return FoldScores(self._table(methods, settings), {}, {"demand": demand})

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        split = self._split
        methods, tuned = tuned_baselines(
            split, settings.support_sizes, settings.baselines, note=note
        )
        periods = cut_periods(split.test, split.view)
        demand = forecast(periods, methods)
        demand["forecasts"].update(naive_forecasts(periods))
        facts = {
            "tuned": tuned,
            "num_items": len(split.catalogue),
            "dataset_sha256": split.dataset_sha256,
            "num_users": {p: len(getattr(split, p)) for p in ("train", "validation", "test")},
            "demand": demand,
        }
        return FoldScores(self._table(methods, settings), {}, facts)

    def _table(self, methods: Mapping[str, Method], settings: EvaluationSettings) -> pd.DataFrame:
        empty = pd.DataFrame(columns=["method", "size", "user_id"])
        frames = [
            self._frame(name, cut, method)
            for cut in self._test(settings)
            for name, method in methods.items()
        ]
        return pd.concat(frames, ignore_index=True) if frames else empty

    def _test(self, settings: EvaluationSettings) -> list[CutIntents]:
        test, view = self._split.test, self._split.view
        cuts = cut_after_visits(test, settings.support_sizes, view, end_ms=end_of(test))
        if len(cuts) < len(settings.support_sizes):
            missing = set(settings.support_sizes) - {cut.size for cut in cuts}
            raise DataError(
                f"No test user has a moment to be judged after {min(missing)} visits.",
                remedy="Leave this support size out, or evaluate on more users.",
            )
        return cuts

    def _frame(self, name: str, cut: CutIntents, method: Method) -> pd.DataFrame:
        p_N1, user_ids = method(cut).reshape(-1, 1), self._split.test.user_ids
        return method_rows(name, cut.rows(), p_N1, user_ids=user_ids, targets=(TARGET,))


def summarise_intents(scores: Sequence[FoldScores]) -> Summary:
    """Probabilities by visits known, and demand forecasts."""
    return {**summarise(scores, judged=JUDGED), "demand": summarise_demand(scores)}


INTENT = ScenarioKind(Intent, BASELINES, summarise_intents, write_report, text_tables)
