"""One artifact for two scenarios: trained together, evaluated by section, served on both routes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.build import build_algorithm
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.config.scenario import RecommendConfig, SearchConfig, SeveralConfig
from raymeta.data.events import support_from_events
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.fold import FoldScores
from raymeta.evaluation.run import protocol_facts, run_facts
from raymeta.evaluation.scenarios.table import SCENARIOS, evaluation_settings, open_scenario
from raymeta.experiments.cells import CellStore
from raymeta.experiments.folds import compute_job, job_cell, plan
from raymeta.experiments.training import train_fold
from raymeta.models.personal_search import PersonalSearch
from raymeta.seeding import torch_generator
from raymeta.serve.models import TenantModels, first_variant
from raymeta.train.run import train_in_process
from raymeta.types import Params
from tests.helpers.shops import SHOP, describe_items, write_grouped_shop
from tests.unit.serve.conftest import NOW_MS, caller

SEARCH = SearchConfig(
    text_columns=("title", "category"),
    query_columns=("category",),
    num_candidates=40,
    encoder=None,
)
EXPERIMENT = ExperimentConfig(
    name="both",
    data=SHOP,
    scenario=SeveralConfig(of=(RecommendConfig(), SEARCH)),
    model=FactorizationConfig(dim=8, regularisation=1.0),
    training=TrainingConfig(tasks_per_batch=16, max_outer_steps=4, validate_every=2),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = write_grouped_shop(tmp_path_factory.mktemp("several") / "data")
    describe_items(folder, ["green tea", "green tea", "red bowl", "red bowl"])
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory) -> Artifact:
    path = tmp_path_factory.mktemp("trained") / "artifact"
    train_in_process(EXPERIMENT, data, out=path)
    return load_artifact(path)


def test_the_artifact_names_both_and_keeps_one_model(trained):
    assert trained.manifest["scenarios"] == ["recommend", "search"]
    assert isinstance(trained.algorithm.model, PersonalSearch)
    assert "log_variance" not in trained.meta_params


def test_every_scenario_cuts_the_same_support(data):
    split = load_task_split(data, EXPERIMENT.data)
    histories = [split.train[row] for row in range(4)]
    batches = [
        open_scenario(alone, split).task_batch(histories, [0, 1, 2, 2])
        for alone in EXPERIMENT.alone()
    ]
    together = open_scenario(EXPERIMENT, split).task_batch(histories, [0, 1, 2, 2])
    for name, value in together.support.items():
        for batch in batches:
            torch.testing.assert_close(batch.support[name], value)
    assert {name.partition("/")[0] for name in together.query} == {"recommend", "search"}


def test_the_gradient_is_the_weighted_sum_of_those_alone(data):
    weights = (2.0, 0.5)
    fixed = EXPERIMENT.scenario.model_copy(update={"weights": weights})
    together = EXPERIMENT.model_copy(update={"scenario": fixed})
    split = load_task_split(data, EXPERIMENT.data)
    histories = [split.train[row] for row in range(6)]

    def gradients(experiment: ExperimentConfig) -> Params:
        learner = build_algorithm(experiment, split)
        batch = open_scenario(experiment, split).task_batch(histories, [0, 1, 2, 2, 1, 3])
        params = learner.init(torch_generator(0, "init"))
        return learner.meta_gradient(params, batch).gradients

    found = gradients(together)
    recommend, search = (gradients(alone) for alone in together.alone())
    assert set(found) == set(search) > set(recommend)
    for name, value in found.items():
        expected = weights[1] * search[name]
        if name in recommend:
            expected = expected + weights[0] * recommend[name]
            # a search weighs what the taste says and leaves the taste itself to recommending
            torch.testing.assert_close(search[name], torch.zeros_like(search[name]))
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4)


def test_validation_is_the_mean_over_all_that_is_judged(data, trained):
    split = load_task_split(data, EXPERIMENT.data)
    found = [
        open_scenario(one, split).validation(split.validation, (1,))(
            trained.algorithm, trained.meta_params
        )[1]
        for one in (EXPERIMENT, *EXPERIMENT.alone())
    ]
    assert found[0].weight == found[1].weight + found[2].weight
    assert found[0].total == pytest.approx(found[1].total + found[2].total)


def test_the_report_has_a_section_for_each_with_what_it_gives_alone(data, tmp_path):
    settings = evaluation_settings(EXPERIMENT, baselines=("popularity", "bm25"))
    jobs = plan(EXPERIMENT, data, settings, cells=tmp_path / "cells", num_folds=1, seeds=(0,))
    assert [job.kind for job in jobs] == ["adapted", "alone", "alone", "baselines"]
    scores = []
    for job in jobs:
        compute_job(job, train_fold)
        folder = CellStore(job.cells).find(job_cell(job))
        assert folder is not None
        scores.append(FoldScores.read(folder))
    kind = SCENARIOS["several"]
    result = {
        **kind.summarise(scores),
        "scenario": "several",
        "protocol": protocol_facts(EXPERIMENT.data, settings, name="both", folds=1),
        "run": run_facts("raymeta evaluate", wall_s=1.0, folds=scores),
    }
    kind.write_report(result, scores, tmp_path / "report")
    written = json.loads((tmp_path / "report" / "results.json").read_text())["sections"]
    assert set(written["recommend"]["differences"]) == {"unadapted", "alone", "popularity"}
    assert set(written["search"]["differences"]) == {"unadapted", "alone", "bm25"}
    for section in written.values():
        assert section["differences"]["unadapted"]["2"]["ndcg_at_10"]["low"] > 0.1
    texts = {n: (tmp_path / "report" / n / "report.md").read_text() for n in written}
    assert "support items taken out" in texts["recommend"]
    assert "support items stay in" in texts["search"]
    tables, lines = kind.text_tables(result)
    assert {table.title.split(":")[0] for table in tables} == {"recommend", "search"}
    assert len(lines) == 2


def test_both_routes_answer_from_one_state(data, trained, maker, make_service):
    split = load_task_split(data, EXPERIMENT.data)
    history = split.test[0]
    support = history.where(history.visit < 2)
    rows = support_from_events([support], trained.view)
    state = trained.algorithm.adapt(trained.meta_params, rows)
    expected = trained.algorithm.score(trained.meta_params, state)[0].numpy()

    service = make_service()
    service.use({"default": TenantModels({"default": first_variant(trained, maker)}, "default")})
    call = caller(service)
    ids = trained.catalogue.item_ids
    events = [
        {"event_type": "purchase", "item_id": ids[item], "timestamp": int(NOW_MS - 10**9 + time)}
        for item, time in zip(support.item.tolist(), support.timestamp_ms.tolist(), strict=True)
    ]
    assert call("POST", "/v1/events", json={"user_id": "ann", "events": events}).is_success
    listed = call("POST", "/v1/recommend", json={"user_id": "ann", "n": 5}).json()
    scores = {item["id"]: item["score"] for item in listed["items"]}
    place = {item_id: row for row, item_id in enumerate(ids)}
    np.testing.assert_allclose(
        list(scores.values()), [expected[place[name]] for name in scores], atol=1e-5
    )
    asked = {"user_id": "ann", "items": list(ids), "query": "green tea"}
    found = call("POST", "/v1/rank", json=asked).json()
    assert found["fallback"] is None
    assert found["n_support"] == listed["n_support"] == len(support)
    assert call("POST", "/v1/rank", json={**asked, "query": None}).is_success


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ({"name": "several", "of": [{"name": "search"}, {"name": "search"}]}, "named twice"),
        (
            {"name": "several", "of": [{"name": "search"}, {"name": "recommend"}], "weights": [1]},
            "1 weights are given for 2",
        ),
    ],
)
def test_a_list_that_cannot_be_is_refused(scenario, message):
    with pytest.raises(ValueError, match=message):
        SeveralConfig.model_validate(scenario)
