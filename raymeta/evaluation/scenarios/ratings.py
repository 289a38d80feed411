"""Rating: what a new user gives to held-back items, after so many ratings are known."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from raymeta.config.experiment import ExperimentConfig
from raymeta.config.scenario import RatingsConfig
from raymeta.data.events import History, pad_items, support_from_events
from raymeta.data.rating_factors import group_of
from raymeta.data.ratings import fit_biases, rated
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit
from raymeta.errors import ConfigError
from raymeta.evaluation.adapted import Adapts
from raymeta.evaluation.baselines.ratings import BASELINES, tuned_ratings
from raymeta.evaluation.fold import OURS, UNADAPTED, EvaluationSettings, FoldScores
from raymeta.evaluation.rating_report import summarise, text_tables, write_report
from raymeta.evaluation.ratings import (
    RATING_METRICS,
    AdaptedRatings,
    Floats,
    RatingPredictor,
    RatingTasks,
    TrueRatings,
    chance_metrics,
    hold_back,
    rating_metrics,
)
from raymeta.evaluation.scenarios.base import Measure, Note, ScenarioKind, Sums
from raymeta.seeding import numpy_generator
from raymeta.types import Examples, Params, TaskBatch


class Ratings:
    """Tasks of rated items, judged by the error or by the order of what is predicted.

    Args:
        experiment: which ratings are held back, and how they are judged.
        split: the users.
    """

    def __init__(self, experiment: ExperimentConfig, split: TaskSplit) -> None:
        if not isinstance(experiment.scenario, RatingsConfig):
            raise ConfigError(
                f"The scenario is {experiment.scenario.name}, not ratings.",
                remedy="Set scenario.name: ratings.",
            )
        self._config, self._split = experiment.scenario, split
        self._biases = fit_biases(
            split.train, num_items=len(split.catalogue), positive_types=split.positive_types
        )

    def num_units(self, history: History) -> int:
        return len(rated([history], positive_types=self._split.positive_types)[0])

    def task_batch(self, histories: Sequence[History], sizes: Sequence[int]) -> TaskBatch:
        pairs = [self._divided(h, size) for h, size in zip(histories, sizes, strict=True)]
        support = support_from_events([known for known, _ in pairs], self._split.view)
        later = [query for _, query in pairs]
        query = pad_items([h.item for h in later], [h.value for h in later])
        # the model's item counts hold training users: each row is taken out of them
        return TaskBatch(
            {**support, **self._counted(support, histories)},
            {**query, **self._counted(query, histories)},
        )

    def validation(self, users: UserTasks, sizes: Sequence[int]) -> Measure:
        tasks = {size: self._tasks(users, size) for size in sizes}

        def measure(algorithm: Adapts, params: Params) -> dict[int, Sums]:
            predictor = AdaptedRatings(algorithm, params, view=self._split.view)
            return {
                size: Sums(self._measured(predictor, draws), float(sum(map(len, draws))))
                for size, draws in tasks.items()
            }

        return measure

    def score_adapted(
        self, algorithm: Adapts, meta_params: Params, settings: EvaluationSettings
    ) -> FoldScores:
        view = self._split.view
        predictors = {
            OURS: AdaptedRatings(algorithm, meta_params, view=view),
            UNADAPTED: AdaptedRatings(algorithm, meta_params, view=view, forget=True),
        }
        frames = []
        for size in settings.support_sizes:
            draws = self._tasks(self._split.test, size)
            for name, predictor in predictors.items():
                found = [rating_metrics(predictor, t, liked_from=self._liked) for t in draws]
                frames.append(self._frame(name, size, draws, found))
        return FoldScores(pd.concat(frames, ignore_index=True), {}, {})

    def score_baselines(self, settings: EvaluationSettings, *, note: Note) -> FoldScores:
        split, order_only = self._split, self._config.judged_by == "order"
        known = [self._tasks(split.validation, size) for size in settings.support_sizes if size]

        def measure(predictor: RatingPredictor) -> float:
            sums = [self._measured(predictor, draws) / sum(map(len, draws)) for draws in known]
            return float(np.mean(sums))

        tuned = {}
        for name in settings.baselines:
            note(f"Tuning {name.replace('_', ' ')}")
            tuned[name] = tuned_ratings(name, split, measure, order_only=order_only)
        frames, outside = [], {}
        for size in settings.support_sizes:
            draws = self._tasks(split.test, size)
            outside[str(size)] = sum(tasks.num_outside for tasks in draws)
            methods = {
                name: [found.metrics(t, liked_from=self._liked) for t in draws]
                for name, found in tuned.items()
            }
            methods["chance"] = [
                chance_metrics(t, mean=self._biases.mean, liked_from=self._liked) for t in draws
            ]
            methods["ceiling"] = [
                rating_metrics(TrueRatings(t), t, liked_from=self._liked) for t in draws
            ]
            frames += [self._frame(name, size, draws, found) for name, found in methods.items()]
        facts = {
            "tuned": {name: found.facts() for name, found in tuned.items()},
            "num_items": len(split.catalogue),
            "dataset_sha256": split.dataset_sha256,
            "num_users": {p: len(getattr(split, p)) for p in ("train", "validation", "test")},
            "num_outside": outside,
            "num_cold_items": 0 if split.cold is None else int(split.cold.sum()),
            "scenario": self._config.model_dump(),
        }
        return FoldScores(pd.concat(frames, ignore_index=True), {}, facts)

    @property
    def _liked(self) -> float:
        return self._config.liked_from

    def _tasks(self, users: UserTasks, size: int) -> list[RatingTasks]:
        """One for each draw of what is held back."""
        config = self._config
        draws = range(config.num_draws) if config.query == "random" else [None]
        return [
            hold_back(
                users,
                num_query=config.num_query,
                support_size=size,
                draw=draw,
                cold=self._split.cold,
            )
            for draw in draws
        ]

    def _measured(self, predictor: RatingPredictor, draws: Sequence[RatingTasks]) -> float:
        """Sum over tasks of what validation looks at; higher is better."""
        found = [rating_metrics(predictor, tasks, liked_from=self._liked) for tasks in draws]
        if self._config.judged_by == "error":
            return -float(sum(of["mae"].sum() for of in found))
        return float(sum(of["ndcg_at_5"].sum() for of in found))

    def _divided(self, history: History, size: int) -> tuple[History, History]:
        """A training task: `size` known ratings, and those that come after or all others."""
        positive = np.isin(history.event_type, self._split.positive_types)
        usable = history.where((history.item >= 0) & np.isfinite(history.value) & positive)
        if self._config.query == "last":
            return usable.where(slice(0, size)), usable.where(slice(size, None))
        # a function of the history and the size, so that a run can resume
        draw = numpy_generator(size, "ratings", len(usable), int(usable.item.sum()))
        order = draw.permutation(len(usable))
        return usable.where(np.sort(order[:size])), usable.where(np.sort(order[size:]))

    def _counted(self, rows: Examples, histories: Sequence[History]) -> Examples:
        """What each user added to the counts of the items in its rows, and the group of users
        whose vectors do not know it, `[T, S]` each."""
        counted = torch.zeros(rows["item"].shape)
        value = torch.zeros_like(counted)
        biases = self._biases
        for row, history in enumerate(histories):
            items, ratings = rated([history], positive_types=self._split.positive_types)
            if len(items) == 0:
                continue
            left = ratings - biases.of_user(items, ratings) - biases.mean
            own, place = np.unique(items, return_inverse=True)
            at = np.searchsorted(own, rows["item"][row].numpy()).clip(max=len(own) - 1)
            mine = rows["mask"][row] & (torch.from_numpy(own[at]) == rows["item"][row])
            counted[row] = torch.from_numpy(np.bincount(place)[at]).float() * mine
            value[row] = torch.from_numpy(np.bincount(place, left)[at]).float() * mine
        groups = torch.tensor([group_of(history) for history in histories])
        group = groups[:, None].expand(rows["item"].shape)
        return {"counted": counted, "counted_value": value, "group": group}

    def _frame(
        self,
        name: str,
        size: int,
        draws: Sequence[RatingTasks],
        found: Sequence[Mapping[str, Floats]],
    ) -> pd.DataFrame:
        """A row a user, the mean over draws; a metric that no draw has is NaN."""
        tables = [
            pd.DataFrame({"row": tasks.rows, **of}) for tasks, of in zip(draws, found, strict=True)
        ]
        means = pd.concat(tables, ignore_index=True).groupby("row")[list(RATING_METRICS)].mean()
        ids = self._split.test.user_ids[means.index.to_numpy()].astype(object)
        columns = {"method": name, "size": size, "user_id": ids}
        return pd.DataFrame({**columns, **{m: means[m].to_numpy() for m in RATING_METRICS}})


RATINGS = ScenarioKind(Ratings, BASELINES, summarise, write_report, text_tables)
