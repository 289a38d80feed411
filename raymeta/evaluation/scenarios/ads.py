"""Ads: clicks and conversions of what a new user is shown, after so many impressions."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from raymeta.config.experiment import ExperimentConfig
from raymeta.data.episodes import cut_impressions
from raymeta.data.events import History, pad_labelled, padded_width, support_from_events
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import DataError
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.baselines.clicks import BASELINES, ClickColumns, tuned_baselines
from raymeta.evaluation.fold import OURS, UNADAPTED, EvaluationSettings, FoldScores
from raymeta.evaluation.labelled import (
    TARGETS,
    CutUsers,
    cut_users,
    log_losses,
    method_rows,
    predicted,
)
from raymeta.evaluation.pointwise import Judged, summarise
from raymeta.evaluation.pointwise_report import text_tables, write_report
from raymeta.evaluation.scenarios.base import Measure, Note, ScenarioKind, Sums
from raymeta.types import Params, TaskBatch

JUDGED = Judged(
    targets=TARGETS,
    unit="impressions",
    curve="click_gauc",
    about=(
        "Known of a user: the first k impressions and what had come of them. Judged: the "
        "probabilities of a click and of a conversion after it of all later impressions of "
        "catalogue items. The base rate is chance: an AUC of one half."
    ),
)


class Ads:
    """Tasks cut by impressions, judged by the probabilities of the later ones.

    Args:
        experiment: not read: what is positive is named by `data.feedback`.
        split: the users; its view joins feedback to impressions.
    """

    def __init__(self, experiment: ExperimentConfig, split: TaskSplit) -> None:
        del experiment
        self._split, self._types = split, split.view.feedback

    def num_units(self, history: History) -> int:
        assert self._types is not None
        shown = history.event_type == self._types.impression
        return int((shown & (history.item >= 0)).sum())

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        assert self._types is not None
        pairs = [
            cut_impressions(history, size, types=self._types)
            for history, size in zip(histories, sizes, strict=True)
        ]
        support = support_from_events([support for support, _ in pairs], self._split.view)
        queries = [query for _, query in pairs]
        query = pad_labelled(queries, width=padded_width(map(len, queries)))
        # the model's item counts hold training users: each row is taken out of them
        return TaskBatch(
            {**support, "counted": support["mask"].float()},
            {**query, "counted": query["mask"].float()},
        )

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        cuts = cut_users(users, sizes, self._split.view)
        labels = {cut.size: cut.rows()[list(TARGETS)].to_numpy() for cut in cuts}
        base = ClickColumns(self._split).base
        entropy = float(-(base * np.log(base) + (1 - base) * np.log1p(-base)).sum())

        def measure(algorithm: Adapts, params: Params) -> dict[int, Sums]:
            found = {}
            for cut in cuts:
                p = predicted(algorithm, params, cut, self._split.view)  # type: ignore[arg-type]
                losses = log_losses(labels[cut.size], p).sum(1)
                found[cut.size] = Sums(float((1.0 - losses / entropy).sum()), float(len(losses)))
            return found

        return measure

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        view = self._split.view
        frames = []
        for cut in self._test(settings):
            for name, adapted in ((OURS, True), (UNADAPTED, False)):
                p = predicted(algorithm, meta_params, cut, view, adapted=adapted)  # type: ignore[arg-type]
                frames.append(self._frame(name, cut, p))
        return FoldScores(pd.concat(frames, ignore_index=True), {}, {})

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        split = self._split
        cuts = self._test(settings)
        methods, tuned = tuned_baselines(
            split, settings.support_sizes, settings.baselines, note=note
        )
        frames = [
            self._frame(name, cut, method(cut)) for cut in cuts for name, method in methods.items()
        ]
        empty = pd.DataFrame(columns=["method", "size", "user_id"])
        facts = {
            "tuned": tuned,
            "num_items": len(split.catalogue),
            "dataset_sha256": split.dataset_sha256,
            "num_users": {p: len(getattr(split, p)) for p in ("train", "validation", "test")},
            "num_outside": cuts[0].num_outside,
        }
        return FoldScores(pd.concat(frames, ignore_index=True) if frames else empty, {}, facts)

    def _test(self, settings: EvaluationSettings) -> list[CutUsers]:
        cuts = cut_users(self._split.test, settings.support_sizes, self._split.view)
        if len(cuts) < len(settings.support_sizes):
            missing = set(settings.support_sizes) - {cut.size for cut in cuts}
            raise DataError(
                f"No test user has an impression after the first {min(missing)}.",
                remedy="Leave this support size out, or evaluate on more users.",
            )
        return cuts

    def _frame(self, name: str, cut: CutUsers, p_N2: np.ndarray) -> pd.DataFrame:
        user_ids = self._split.test.user_ids
        return method_rows(name, cut.rows(), p_N2, user_ids=user_ids, targets=TARGETS)


ADS = ScenarioKind(Ads, BASELINES, partial(summarise, judged=JUDGED), write_report, text_tables)
