"""Real histories to replay against a running service, with what baselines make of them.

Households are test users of the artifact's own split: training never met them. They are chosen by
how much they did, never by how well they were foreseen. Leaves the service's own lists to whoever
replays them.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.errors import ConfigError, DataError
from raymeta.evaluation.fold import refuse_known_users
from raymeta.evaluation.protocol import Scorer, Tasks, cut_tasks, score_tasks
from raymeta.evaluation.tuning import BaselineSearch
from raymeta.serve.schemas.page import Household, Households, ReplayedEvent

if TYPE_CHECKING:
    from raymeta.artifact import Artifact

NUM_HOUSEHOLDS = 6
MAX_STEPS = 40
"""Events of a household that are replayed; at most half of what it did, so that there is something
left to find."""

BASELINES = ("popularity", "item_knn")


def find_households(artifact: "Artifact", data_dir: str | Path) -> Households:
    """Test users of the artifact, and nDCG@10 of tuned baselines after each of their events.

    Args:
        artifact: whose split says who was never trained on.
        data_dir: the data set it was trained on.

    Raises:
        LeakageError: a test user was trained on: it is another data set, or another split.
        DataError: no test user has enough events.
    """
    config = artifact.experiment.data
    split = load_task_split(data_dir, config, parts=("train", "validation", "test"))
    refuse_known_users(split, artifact.train_user_hashes)
    replays = _chosen(split)
    if not replays:
        raise DataError(
            "No test user has enough events to be replayed.",
            remedy="Serve without it, or prepare a longer log.",
        )
    scorers = _baselines(split, config.support_sizes, unit=config.unit)
    return Households(
        model_version=artifact.model_version,
        households=[
            _household(user_id, history, split, scorers) for user_id, history in replays.items()
        ],
    )


def read_households(path: str | Path | None) -> Households | None:
    """What was written as JSON; None without a file.

    Raises:
        ConfigError: the file is missing or is something else.
    """
    if path is None:
        return None
    try:
        return Households.model_validate_json(Path(path).expanduser().read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigError(
            f"The households cannot be read from {path}: {reason}.",
            remedy="Have the file written by `raymeta serve ARTIFACT --playground DATA_DIR`.",
        ) from None


def _chosen(split: TaskSplit) -> dict[str, History]:
    """By user id: events on items of the catalogue, of users spread evenly over how many."""
    known = {
        str(user_id): history.where(history.item >= 0)
        for user_id, history in zip(split.test.user_ids, split.test.histories, strict=True)
    }
    able = [
        user_id
        for user_id, history in known.items()
        if len(history) >= 4 and all(len(q) for q in _queries(history, split.positive_types))
    ]
    able.sort(key=lambda user_id: (len(known[user_id]), user_id))
    places = np.linspace(0, len(able) - 1, min(NUM_HOUSEHOLDS, len(able)) + 2)[1:-1]
    return {able[place]: known[able[place]] for place in np.unique(places.round().astype(int))}


def _num_steps(history: History) -> int:
    return min(MAX_STEPS, len(history) // 2)


def _queries(history: History, positive_types: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """What there is to find after 0, 1, ... events, as the protocol has it: later positive items,
    less those of the support."""
    positive = np.isin(history.event_type, positive_types)
    return [
        np.setdiff1d(history.item[step:][positive[step:]], history.item[:step])
        for step in range(_num_steps(history) + 1)
    ]


def _baselines(split: TaskSplit, sizes: tuple[int, ...], *, unit: str) -> dict[str, Scorer]:
    """Fitted on training users, tuned on validation users."""
    train = InteractionMatrix.from_histories(
        split.train.histories,
        num_items=len(split.catalogue),
        positive_types=split.positive_types,
    )
    validation = cut_tasks(
        split.validation.histories,
        sizes,
        unit=unit,  # type: ignore[arg-type]
        positive_types=split.positive_types,
    )
    search = BaselineSearch(
        train,
        validation,
        unit=unit,  # type: ignore[arg-type]
        positive_types=split.positive_types,
    )
    return {name: search.tune(name).scorer for name in BASELINES}


def _household(
    user_id: str, history: History, split: TaskSplit, scorers: dict[str, Scorer]
) -> Household:
    num_items, ids = len(split.catalogue), split.catalogue.item_ids
    queries = _queries(history, split.positive_types)
    steps = len(queries) - 1
    tasks = Tasks(
        size=steps,
        user_rows=np.zeros(len(queries), np.int64),
        supports=[history.where(slice(0, step)) for step in range(len(queries))],
        queries=queries,
        num_outside=0,
    )
    replayed = history.where(slice(0, steps))
    events = [
        ReplayedEvent(
            item_id=ids[item],
            event_type=split.event_types[kind],
            timestamp=ms,
            value=None if math.isnan(value) else value,
            place=None if place < 0 else split.view.places[place],
        )
        for item, kind, ms, value, place in zip(
            replayed.item.tolist(),
            replayed.event_type.tolist(),
            replayed.timestamp_ms.tolist(),
            replayed.value.tolist(),
            replayed.place.tolist(),
            strict=True,
        )
    ]
    return Household(
        user_id=user_id,
        events=events,
        positive=np.isin(replayed.event_type, split.positive_types).tolist(),
        later=[ids[item] for item in queries[-1].tolist()],
        ndcg_at_10={
            name: score_tasks(scorer, [tasks], num_items=num_items)
            .users["ndcg_at_10"]
            .round(6)
            .tolist()
            for name, scorer in scorers.items()
        },
    )
