"""One fold scored: every method over the test users, per user, with what was done to get there.

What a fold's scores hold is plain (a table and facts as JSON), so that it can be kept, sent between
processes, and pooled with other folds. Pooling and intervals are the report's business.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raymeta.data.episodes import Unit
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_dataset import UserTasks
from raymeta.data.task_split import TaskSplit, users_digest
from raymeta.errors import ConfigError, DataError, LeakageError
from raymeta.evaluation.adapted import AdaptedScorer, Adapts, UnadaptedScorer
from raymeta.evaluation.baselines.places import PlacePopularity
from raymeta.evaluation.protocol import (
    Scored,
    Scorer,
    Tasks,
    cut_tasks,
    reference_lines,
    score_tasks,
)
from raymeta.evaluation.tuning import BASELINES, NEEDS_PLACES, BaselineSearch
from raymeta.types import Params

OURS = "adapted"
UNADAPTED = "unadapted"
ALONE = "alone"
"""The same model trained for one scenario, where ours is trained for several."""

_TABLE, _FACTS = "scores.parquet", "facts.json"


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured, apart from the model.

    Attributes:
        support_sizes: units of events that are known of a user.
        unit: what they count.
        repeat: support items are ranked too, and count where they are bought again.
        baselines: names of the scenario's baselines.
        locked: users kept aside for a release are scored, in place of the test users.
    """

    support_sizes: tuple[int, ...]
    unit: Unit = "visits"
    repeat: bool = False
    baselines: tuple[str, ...] = BASELINES
    locked: bool = False

    def __post_init__(self) -> None:
        if not self.support_sizes or min(self.support_sizes) < 0:
            raise ConfigError(
                f"Support sizes {list(self.support_sizes)} must be at least one number, none "
                "below 0.",
                remedy="Write for example --support-sizes 0,1,2,3,5,10.",
            )
        object.__setattr__(self, "support_sizes", tuple(sorted(set(self.support_sizes))))


@dataclass(frozen=True)
class FoldScores:
    """Per-user scores of some methods on one fold.

    Attributes:
        table: a row a (method, size, user): `method`, `size`, `user_id`, then a column a metric.
        coverage: method -> size -> share of the catalogue recommended to anyone.
        facts: what else a report says: users, items outside the catalogue, tuned settings.
    """

    table: pd.DataFrame
    coverage: dict[str, dict[int, float]]
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes the scores into an existing folder."""
        self.table.to_parquet(folder / _TABLE, index=False)
        facts = {"coverage": self.coverage, "facts": self.facts}
        (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "FoldScores":
        """Reads what `write` wrote."""
        stored = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        coverage = {
            method: {int(size): share for size, share in by_size.items()}
            for method, by_size in stored["coverage"].items()
        }
        return cls(pd.read_parquet(folder / _TABLE), coverage, stored["facts"])


def score_baselines(
    split: TaskSplit,
    settings: EvaluationSettings,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> FoldScores:
    """Tunes the baselines on validation users and scores them, and chance and ceiling, on test.

    A baseline that cannot be fitted (too large a catalogue) is left out; the facts say why.
    """
    num_items = len(split.catalogue)
    train = InteractionMatrix.from_histories(
        split.train.histories, num_items=num_items, positive_types=split.positive_types
    )
    test = _cut(split.test, settings, split)
    methods = dict(reference_lines(test, num_items=num_items))
    tuned, left_out = {}, {}
    if settings.baselines:
        search = BaselineSearch(
            train,
            _cut(split.validation, settings, split),
            unit=settings.unit,
            positive_types=split.positive_types,
            places=partial(_place_popularity, split) if split.view.places else None,
            note=note,
        )
        unseen = NEEDS_PLACES if not split.view.places else frozenset()
        for name in (name for name in settings.baselines if name not in unseen):
            try:
                found = search.tune(name)
            except ConfigError:
                raise
            except DataError as error:
                left_out[name] = str(error)
                continue
            tuned[name] = found.facts()
            methods[name] = score_tasks(found.scorer, test, num_items=num_items)
    facts = {
        "tuned": tuned,
        "left_out": left_out,
        "num_items": num_items,
        "dataset_sha256": split.dataset_sha256,
        "num_users": {part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        "num_tasks": {str(tasks.size): len(tasks) for tasks in test},
        "num_outside": {str(tasks.size): tasks.num_outside for tasks in test},
    }
    return collect(methods, split.test.user_ids, facts)


def score_adapted(
    algorithm: Adapts, meta_params: Params, split: TaskSplit, settings: EvaluationSettings
) -> FoldScores:
    """Scores a meta-learner on the test users, adapted (through the split's view) and not."""
    num_items = len(split.catalogue)
    test = _cut(split.test, settings, split)
    scorers: dict[str, Scorer] = {
        OURS: AdaptedScorer(algorithm, meta_params, view=split.view),
        UNADAPTED: UnadaptedScorer(algorithm, meta_params, view=split.view),
    }
    methods = {
        name: score_tasks(scorer, test, num_items=num_items) for name, scorer in scorers.items()
    }
    return collect(methods, split.test.user_ids, {})


def refuse_known_users(split: TaskSplit, trained_on: Sequence[str]) -> None:
    """Raises `LeakageError` if a test user's hash is among those that training recorded."""
    digests = users_digest(split.test.user_ids)
    met = set(digests) & set(trained_on)
    if met:
        raise LeakageError(
            f"{len(met)} of {len(digests)} test users were used to train this artifact.",
            remedy="Evaluate on the data and with the split that the artifact was trained with.",
        )


def _place_popularity(split: TaskSplit, settings: dict[str, float]) -> PlacePopularity:
    return PlacePopularity(
        split.train,
        positive_types=split.positive_types,
        num_places=len(split.view.places),
        num_items=len(split.catalogue),
        **settings,
    )


def _cut(users: UserTasks, settings: EvaluationSettings, split: TaskSplit) -> list[Tasks]:
    return cut_tasks(
        users.histories,
        settings.support_sizes,
        unit=settings.unit,
        positive_types=split.positive_types,
        repeat=settings.repeat,
    )


def collect(
    methods: dict[str, Scored], user_ids: NDArray[np.str_], facts: dict[str, Any]
) -> FoldScores:
    """The scores of several methods on the same users, with their ids."""
    frames = []
    for name, scored in methods.items():
        frame = scored.users.rename(columns={"user_row": "user_id"})
        frame["user_id"] = user_ids[frame["user_id"].to_numpy()].astype(object)
        frame.insert(0, "method", name)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    return FoldScores(table, {name: s.coverage for name, s in methods.items()}, facts)
