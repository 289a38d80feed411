"""Cells: computed once, resumable, and keyed by everything that decides them."""

from pathlib import Path

import pytest

from raymeta.config.data import DataConfig, SplitConfig
from raymeta.config.experiment import ExperimentConfig
from raymeta.errors import ConfigError, DataError
from raymeta.evaluation.fold import EvaluationSettings
from raymeta.experiments.cells import MODEL_CODE, SCORING_CODE, Cell, CellStore, code_version
from raymeta.experiments.folds import compute_job, job_cell, model_cell, plan
from tests.helpers.shops import SHOP, write_grouped_shop

CELL = Cell("model", "fold0", {"rate": 0.1})
SETTINGS = EvaluationSettings((0, 1), baselines=("popularity",))
EXPERIMENT = ExperimentConfig(name="shop", data=SHOP)


@pytest.fixture
def shop(tmp_path):
    return write_grouped_shop(tmp_path / "shop", num_users=60)


def planned(shop, experiment=EXPERIMENT, *, settings=SETTINGS, num_folds=2, seeds=(0,)):
    return plan(experiment, shop, settings, cells=shop / "cells", num_folds=num_folds, seeds=seeds)


def test_a_cell_is_computed_once(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder)
        (folder / "value").write_text("1")

    store = CellStore(tmp_path)
    assert store.find(CELL) is None
    first, second = store.compute(CELL, work), store.compute(CELL, work)
    assert first == second == store.find(CELL)
    assert (first / "value").read_text() == "1"
    assert len(calls) == 1


def test_an_interrupted_cell_is_not_there_and_goes_on_where_it_was(tmp_path):
    store = CellStore(tmp_path)

    def interrupted(folder):
        (folder / "checkpoint").write_text("step 5")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.compute(CELL, interrupted)
    assert store.find(CELL) is None
    seen = []
    store.compute(CELL, lambda folder: seen.append((folder / "checkpoint").read_text()))
    assert seen == ["step 5"]
    assert store.find(CELL) is not None


def test_the_key_decides_the_name_and_the_label_does_not_decide_the_key():
    assert CELL.name == Cell("model", "fold0", {"rate": 0.1}).name
    assert CELL.name != Cell("model", "fold0", {"rate": 0.2}).name
    assert CELL.name.split("-")[-1] == Cell("model", "other", {"rate": 0.1}).name.split("-")[-1]


def test_code_that_decides_a_model_is_other_code_than_what_decides_scores():
    scoring, model = code_version(*SCORING_CODE), code_version(*MODEL_CODE)
    assert scoring == code_version(*SCORING_CODE)
    assert len({scoring, model, code_version(*SCORING_CODE, *MODEL_CODE), code_version()}) == 4


def test_what_only_shows_a_result_decides_none():
    assert code_version("evaluation/report.py", "evaluation/plots.py") == code_version()
    assert code_version("evaluation/tuning.py") != code_version()


def test_a_plan_has_each_fold_once_with_its_seeds(shop):
    jobs = planned(shop, num_folds=3, seeds=(0, 1))
    assert [job.label for job in jobs if job.kind == "baselines"] == ["fold0", "fold1", "fold2"]
    assert len([job for job in jobs if job.kind == "adapted"]) == 6
    assert {job.experiment.data.split.num_folds for job in jobs} == {3}
    assert len({job_cell(job).name for job in jobs}) == len(jobs)


def test_one_fold_is_the_experiments_own(shop):
    data = SHOP.model_copy(update={"split": SplitConfig(fold=3)})
    jobs = planned(shop, EXPERIMENT.model_copy(update={"data": data}), num_folds=1)
    assert {job.experiment.data.split.fold for job in jobs} == {3}


def test_a_time_split_has_no_folds(shop):
    split = SplitConfig(kind="time", boundary="2011-06-01")
    data = SHOP.model_copy(update={"split": split})
    with pytest.raises(ConfigError, match="time split"):
        planned(shop, EXPERIMENT.model_copy(update={"data": data}))


def test_a_folder_without_tasks_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json"):
        planned(tmp_path)


def test_what_decides_nothing_changes_no_cell(shop):
    renamed = EXPERIMENT.model_copy(update={"name": "other"})
    moved = renamed.model_copy(update={"data": SHOP.model_copy(update={"path": "elsewhere"})})
    for one, other in zip(planned(shop), planned(shop, moved), strict=True):
        assert job_cell(one).name == job_cell(other).name


def test_other_support_sizes_need_no_other_model(shop):
    longer = EvaluationSettings((0, 1, 2), baselines=("popularity",))
    for one, other in zip(planned(shop), planned(shop, settings=longer), strict=True):
        assert job_cell(one).name != job_cell(other).name
        assert model_cell(one).name == model_cell(other).name


def test_other_baselines_need_no_other_adapted_scores(shop):
    more = EvaluationSettings((0, 1), baselines=("popularity", "item_knn"))
    for one, other in zip(planned(shop), planned(shop, settings=more), strict=True):
        same = job_cell(one).name == job_cell(other).name
        assert same == (one.kind == "adapted")


@pytest.mark.parametrize("changed", [{"min_item_users": 2}, {"max_support_events": 9}])
def test_other_data_settings_are_other_cells(shop, changed):
    data: DataConfig = SHOP.model_copy(update=changed)
    other = planned(shop, EXPERIMENT.model_copy(update={"data": data}))
    for one, two in zip(planned(shop), other, strict=True):
        assert job_cell(one).name != job_cell(two).name


def test_a_job_fills_its_cell_in_process(shop):
    (job,) = [job for job in planned(shop, num_folds=2) if job.label == "fold1"]
    compute_job(job, _must_not_train)
    assert CellStore(job.cells).find(job_cell(job)) is not None


def _must_not_train(_experiment: object, _data: Path, _folder: Path) -> None:
    raise AssertionError("baselines need no model")
