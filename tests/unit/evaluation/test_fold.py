"""A fold: ours beside baselines on the test users, and no user that training met."""

from dataclasses import dataclass, replace

import pytest
import torch

from raymeta.config.experiment import ExperimentConfig
from raymeta.data import interactions
from raymeta.data.task_split import load_task_split, users_digest
from raymeta.errors import ArtifactError, ConfigError, DataError, LeakageError
from raymeta.evaluation.fold import EvaluationSettings, score_adapted, score_baselines
from raymeta.evaluation.run import TRAIN_USERS, evaluate_artifact
from raymeta.evaluation.scenarios.table import evaluation_settings
from raymeta.evaluation.summary import summarise
from tests.helpers.shops import SHOP, write_grouped_shop

SETTINGS = EvaluationSettings((0, 1, 2), baselines=("popularity", "item_knn"))


class CountsSupport:
    """A meta-learner whose state is what was bought: items ten apart attract each other."""

    def __init__(self, num_items, items_per_group):
        self.group = torch.arange(num_items) // items_per_group

    def adapt(self, meta_params, support):
        same = self.group[support["item"]].unsqueeze(-1) == self.group
        return {"liked": (same * support["mask"].unsqueeze(-1)).sum(1).float()}

    def score(self, meta_params, state, candidates=None):
        return state["liked"]


@dataclass
class Model:
    experiment: object
    catalogue: object
    view: object
    algorithm: object
    manifest: dict
    meta_params: dict


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_grouped_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def split(shop):
    return load_task_split(shop, SHOP)


def model(split, **changes):
    values = {
        "experiment": ExperimentConfig(name="shop", data=SHOP),
        "catalogue": split.catalogue,
        "view": split.view,
        "algorithm": CountsSupport(len(split.catalogue), 10),
        "manifest": {TRAIN_USERS: users_digest(split.train.user_ids)},
        "meta_params": {},
    }
    return Model(**{**values, **changes})


def test_users_kept_for_a_release_are_scored_apart(shop, split):
    settings = replace(SETTINGS, locked=True)
    table = evaluate_artifact(model(split), shop, settings)[0].table
    assert set(table["user_id"]) == set(split.locked.user_ids)
    assert len(split.locked)
    known = users_digest(split.locked.user_ids)
    with pytest.raises(LeakageError):
        evaluate_artifact(model(split, manifest={TRAIN_USERS: known}), shop, settings)


def test_adapting_finds_the_group_and_not_adapting_does_not(shop, split):
    result = summarise(evaluate_artifact(model(split), shop, SETTINGS))
    by_size = result["methods"]["adapted"]
    assert by_size["2"]["ndcg_at_10"]["mean"] > 0.75
    assert by_size["0"] == result["methods"]["unadapted"]["0"]
    assert result["differences"]["unadapted"]["1"]["ndcg_at_10"]["low"] > 0
    assert result["num_users"]["1"] == len(split.test)
    assert list(result["methods"]) == [
        "adapted", "unadapted", "popularity", "item_knn", "chance", "ceiling",
    ]  # fmt: skip


def test_a_user_that_training_met_stops_the_evaluation(shop, split):
    known = users_digest(split.test.user_ids[:3])
    with pytest.raises(LeakageError, match=r"^3 of "):
        evaluate_artifact(model(split, manifest={TRAIN_USERS: known}), shop, SETTINGS)


def test_an_artifact_that_does_not_say_whom_it_met_is_refused(shop, split):
    with pytest.raises(ArtifactError, match="whom it was trained on"):
        evaluate_artifact(model(split, manifest={}), shop, SETTINGS)


def test_other_data_is_refused(split, tmp_path):
    other = write_grouped_shop(tmp_path / "other", num_groups=3)
    with pytest.raises(DataError, match="catalogue of 30 items"):
        evaluate_artifact(model(split), other, SETTINGS)


def test_a_baseline_that_cannot_be_fitted_is_left_out_with_its_reason(split, monkeypatch):
    monkeypatch.setattr(interactions, "MAX_DENSE_ITEMS", 5)
    scores = score_baselines(split, SETTINGS)
    assert "40 items" in scores.facts["left_out"]["item_knn"]
    assert "popularity" in set(scores.table["method"])
    assert "item_knn" not in set(scores.table["method"])


def test_no_baselines_at_all_still_gives_chance_and_ceiling(split):
    scores = score_baselines(split, EvaluationSettings((0, 1), baselines=()))
    assert set(scores.table["method"]) == {"chance", "ceiling"}


def test_users_are_adapted_the_same_in_any_batch(split, monkeypatch):
    whole = score_adapted(CountsSupport(len(split.catalogue), 10), {}, split, SETTINGS)
    monkeypatch.setattr("raymeta.evaluation.adapted.USERS_PER_BATCH", 3)
    parts = score_adapted(CountsSupport(len(split.catalogue), 10), {}, split, SETTINGS)
    assert whole.table.equals(parts.table)


def test_settings_are_checked_and_sizes_sorted():
    assert EvaluationSettings((5, 0, 1, 5)).support_sizes == (0, 1, 5)
    with pytest.raises(ConfigError, match="below 0"):
        EvaluationSettings((-1, 2))
    with pytest.raises(ConfigError, match="at least one number"):
        EvaluationSettings(())
    with pytest.raises(ConfigError, match="'slim'"):
        evaluation_settings(ExperimentConfig(name="x"), baselines=("slim",))
