"""Tuning: an equal budget for all, on validation users, and it finds what is there to find."""

import numpy as np
import pytest

from raymeta.data.interactions import InteractionMatrix
from raymeta.data.task_split import load_task_split
from raymeta.errors import ConfigError
from raymeta.evaluation import tuning
from raymeta.evaluation.baselines.places import PlacePopularity
from raymeta.evaluation.protocol import cut_tasks, score_tasks
from raymeta.evaluation.summary import LABELS
from raymeta.evaluation.tuning import (
    BASELINES,
    GRIDS,
    NEEDS_PLACES,
    NUM_CONFIGURATIONS,
    BaselineSearch,
)
from tests.helpers.places import ITEMS, PLACES, matrix_of, shoppers
from tests.helpers.shops import SHOP, write_grouped_shop


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return load_task_split(write_grouped_shop(tmp_path_factory.mktemp("shop")), SHOP)


@pytest.fixture
def search(split):
    return make_search(split, sizes=(0, 1, 2))


def make_search(split, *, sizes):
    train = InteractionMatrix.from_histories(
        split.train.histories,
        num_items=len(split.catalogue),
        positive_types=split.positive_types,
    )
    validation = cut_tasks(
        split.validation.histories, sizes, unit="visits", positive_types=split.positive_types
    )
    return BaselineSearch(train, validation, unit="visits", positive_types=(0,))


def test_every_grid_has_the_same_number_of_distinct_settings():
    for grid in GRIDS.values():
        assert len(grid) == NUM_CONFIGURATIONS
        assert len({tuple(settings.values()) for settings in grid}) == NUM_CONFIGURATIONS


def test_every_part_that_is_tuned_has_a_name_in_reports():
    assert {*GRIDS, *BASELINES} <= LABELS.keys()


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in NEEDS_PLACES])
def test_each_baseline_spends_the_budget_and_finds_the_groups(split, search, name, monkeypatch):
    monkeypatch.setitem(GRIDS, "ials", [dict(s, dim=8) for s in GRIDS["ials"]])
    tuned = search.tune(name)
    assert tuned.num_configurations == (1 if name == "popularity" else NUM_CONFIGURATIONS)
    assert tuned.validation_ndcg == pytest.approx(
        _mean_ndcg(split, split.validation, tuned.scorer), abs=1e-6
    )
    quality = _mean_ndcg(split, split.test, tuned.scorer)
    if name == "popularity":
        assert quality < 0.4
    else:
        # not all of a group's items are bought later, so that not even an oracle of groups has 1
        assert quality > 0.75


def test_places_are_mixed_in_where_they_tell_something():
    def place_popularity(settings):
        return PlacePopularity(
            train,
            positive_types=(0,),
            num_places=PLACES,
            num_items=ITEMS,
            **settings,
        )

    train = shoppers(200, seed=1)
    matrix = matrix_of(train)
    validation = cut_tasks(shoppers(100, seed=2), [1, 2], unit="visits", positive_types=(0,))
    search = BaselineSearch(
        matrix, validation, unit="visits", positive_types=(0,), places=place_popularity
    )
    tuned = search.tune("mixture_with_places")
    assert tuned.num_configurations == NUM_CONFIGURATIONS
    assert set(tuned.settings) == {"item_knn", "ease", "places", "weights"}
    assert tuned.validation_ndcg > search.tune("mixture_with_ease").validation_ndcg + 0.02


def test_the_best_setting_on_validation_wins(split, search, monkeypatch):
    # one factor cannot tell four groups apart; the one that can stands between two that cannot
    settings = {"unobserved": 0.3, "regularisation": 0.003}
    grid = [{"dim": dim, **settings} for dim in (1, 8, 1)]
    monkeypatch.setitem(GRIDS, "ials", grid)
    assert search.tune("ials").settings["dim"] == 8


def test_a_baseline_is_tuned_once(search):
    assert search.tune("item_knn") is search.tune("item_knn")


def test_the_mixture_is_not_worse_on_validation_than_popularity(search):
    assert search.tune("mixture").validation_ndcg >= search.tune("popularity").validation_ndcg
    larger = search.tune("mixture_with_ease")
    assert set(larger.settings["weights"]) == {1, 2}


def test_an_unknown_baseline_is_refused(search):
    with pytest.raises(ConfigError, match=r"'svd'.*popularity"):
        search.tune("svd")


def test_without_support_there_is_nothing_to_tune_on(split):
    with pytest.raises(ConfigError, match="support sizes from 1"):
        make_search(split, sizes=(0,))


def test_facts_are_plain(search):
    facts = search.tune("item_knn").facts()
    assert set(facts) == {"settings", "num_configurations", "validation_ndcg_at_10", "wall_s"}
    assert tuning.BASELINES[0] == "popularity"


def _mean_ndcg(split, users, scorer):
    tasks = cut_tasks(users.histories, (1, 2), unit="visits", positive_types=(0,))
    scored = score_tasks(scorer, tasks, num_items=len(split.catalogue)).users
    return float(np.mean(scored.groupby("size")["ndcg_at_10"].mean()))
