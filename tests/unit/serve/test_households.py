"""Households to replay: never met in training, cut as the protocol cuts, scored as it scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_split import TaskSplit, load_task_split, users_digest
from raymeta.errors import DataError, LeakageError
from raymeta.evaluation.baselines.popularity import Popularity
from raymeta.evaluation.metrics import ndcg_of_list
from raymeta.serve.households import find_households
from raymeta.serve.schemas.page import Households
from tests.helpers.artifacts import tiny_artifact
from tests.helpers.shops import write_grouped_shop


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    tiny_artifact(folder / "artifact")
    return folder


@pytest.fixture(scope="module")
def artifact(data: Path) -> Artifact:
    return load_artifact(data / "artifact")


@pytest.fixture(scope="module")
def found(artifact: Artifact, data: Path) -> Households:
    return find_households(artifact, data / "artifact-data")


@pytest.fixture(scope="module")
def split(artifact: Artifact, data: Path) -> TaskSplit:
    return load_task_split(data / "artifact-data", artifact.experiment.data)


def test_they_are_test_users_with_the_first_half_of_their_events(
    found: Households, artifact: Artifact, split: TaskSplit
) -> None:
    assert found.model_version == artifact.model_version
    ids = [household.user_id for household in found.households]
    assert len(ids) == len(set(ids)) == 6
    assert set(ids) <= set(split.test.user_ids.tolist())
    for household in found.households:
        row = int(np.flatnonzero(split.test.user_ids == household.user_id)[0])
        history = split.test[row]
        names = [split.catalogue.item_ids[item] for item in history.item.tolist()]
        steps = len(household.events)
        assert steps == len(history) // 2
        assert [event.item_id for event in household.events] == names[:steps]
        assert set(household.later) == set(names[steps:]) - set(names[:steps])
        assert all(household.positive)


def test_a_baseline_is_measured_on_the_list_that_it_would_show(
    found: Households, split: TaskSplit
) -> None:
    # popularity by hand: the best ten that the household does not have, against what it gets
    train = InteractionMatrix.from_histories(
        split.train.histories,
        num_items=len(split.catalogue),
        positive_types=split.positive_types,
    )
    order = np.argsort(-Popularity(train).score([split.test[0]])[0], kind="stable")
    by_popularity = [split.catalogue.item_ids[item] for item in order.tolist()]
    for household in found.households:
        bought = [event.item_id for event in household.events]
        values = household.ndcg_at_10["popularity"]
        assert len(values) == len(household.ndcg_at_10["item_knn"]) == len(bought) + 1
        for step, value in enumerate(values):
            has = set(bought[:step])
            wanted = {*bought[step:], *household.later} - has
            shown = [item for item in by_popularity if item not in has][:10]
            expected = ndcg_of_list([item in wanted for item in shown], len(wanted))
            assert value == pytest.approx(expected, abs=2e-6)


def test_neighbours_foresee_a_group_that_popularity_does_not_know_of(found: Households) -> None:
    last = {
        name: np.mean([household.ndcg_at_10[name][-1] for household in found.households])
        for name in ("popularity", "item_knn")
    }
    assert last["item_knn"] > 2 * last["popularity"]


def test_data_whose_test_users_were_trained_on_are_refused(
    artifact: Artifact, data: Path, split: TaskSplit
) -> None:
    leaking = replace(artifact, train_user_hashes=users_digest(split.test.user_ids))
    with pytest.raises(LeakageError):
        find_households(leaking, data / "artifact-data")


def test_users_without_enough_events_are_refused(
    artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # three visits of the same two items: nothing is ever new after the first
    short = write_grouped_shop(
        tmp_path_factory.mktemp("short"), items_per_group=2, visits=4, num_groups=4
    )
    with pytest.raises(DataError, match="No test user has enough events"):
        find_households(artifact, short)
