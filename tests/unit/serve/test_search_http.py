"""A search served is the search that was evaluated: the same scores, moved by the user's events."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.algorithms import CaviaConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.config.scenario import SearchConfig
from raymeta.data.events import History
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.fold import EvaluationSettings
from raymeta.evaluation.run import protocol_facts, run_facts
from raymeta.evaluation.scenarios.search import SEARCH as SEARCH_KIND
from raymeta.evaluation.scenarios.search import Search
from raymeta.evaluation.search import AdaptedSearch, QueryBook, cut_searches
from raymeta.serve.models import TenantModels, first_variant
from raymeta.train.run import train_in_process
from tests.helpers.shops import SHOP, describe_items, write_grouped_shop
from tests.unit.serve.conftest import NOW_MS, caller

SEARCH = SearchConfig(
    text_columns=("title", "category"),
    query_columns=("category",),
    num_candidates=40,
    encoder=None,
)


def experiment() -> ExperimentConfig:
    return ExperimentConfig(
        name="search",
        data=SHOP,
        scenario=SEARCH,
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=CaviaConfig(),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=4, validate_every=2),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = write_grouped_shop(tmp_path_factory.mktemp("search") / "data")
    # two groups of items answer each query, so that the words do not say which is the user's
    describe_items(folder, ["green tea", "green tea", "red bowl", "red bowl"])
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory) -> Artifact:
    path = tmp_path_factory.mktemp("trained") / "artifact"
    train_in_process(experiment(), data, out=path)
    return load_artifact(path)


def test_the_user_moves_a_search_and_text_alone_does_not_know(data, trained):
    split = load_task_split(data, experiment().data)
    found = Search(experiment(), split).score_adapted(
        trained.algorithm, trained.meta_params, EvaluationSettings((2,), baselines=(), repeat=True)
    )
    means = found.table.groupby("method")["ndcg_at_10"].mean()
    assert means["adapted"] > means["unadapted"] + 0.2


def test_baselines_are_scored_on_the_same_users(data):
    split = load_task_split(data, experiment().data)
    names = SEARCH_KIND.baselines
    settings = EvaluationSettings((0, 2), baselines=names, repeat=True)
    found = Search(experiment(), split).score_baselines(settings, note=lambda _: None)
    means = found.table.groupby(["method", "size"])["ndcg_at_10"].mean()
    assert found.table.groupby(["method", "size"]).size().nunique() == 1
    assert means["text_knn", 2] > means["text_popularity", 2] + 0.1
    tuned = {name: facts["validation_ndcg_at_10"] for name, facts in found.facts["tuned"].items()}
    assert tuned["text_knn_features"] >= tuned["text_knn"] > tuned["text_popularity"]
    assert means["ceiling"].min() == pytest.approx(1.0)
    assert found.facts["num_outside"] == {"0": 0, "2": 0}
    assert means["chance"].max() < means["bm25"].min()


def test_the_report_of_a_search_is_written(data, trained, tmp_path):
    split = load_task_split(data, experiment().data)
    settings = EvaluationSettings((0, 2), baselines=("bm25", "text_knn"), repeat=True)
    search = Search(experiment(), split)
    scores = [
        search.score_adapted(trained.algorithm, trained.meta_params, settings),
        search.score_baselines(settings, note=lambda _: None),
    ]
    result = {
        **SEARCH_KIND.summarise(scores),
        "scenario": "search",
        "protocol": protocol_facts(experiment().data, settings, name="search", folds=1),
        "run": run_facts("raymeta evaluate", wall_s=1.0, folds=scores),
    }
    SEARCH_KIND.write_report(result, scores, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "for each of a user's next queries" in text
    assert "| BM25" in text
    tables, _ = SEARCH_KIND.text_tables(result)
    assert [table.title.split()[0] for table in tables] == ["nDCG@10", "MRR", "nDCG@10:"]


def test_served_equals_evaluated(data, trained, maker, make_service):
    split = load_task_split(data, experiment().data)
    book = QueryBook(split.catalogue, SEARCH)
    tasks = cut_searches(
        split.test.histories, 2, book, unit="visits", positive_types=(0,), repeat=True
    )
    scorer = AdaptedSearch(trained.algorithm, trained.meta_params, view=trained.view)
    evaluated = scorer.score(tasks, book)[0]
    ids = trained.catalogue.item_ids
    hits = [ids[i] for i in book.candidates[tasks.query[0]].tolist()]

    service = make_service()
    service.use({"default": TenantModels({"default": first_variant(trained, maker)}, "default")})
    call = caller(service)
    support: History = tasks.supports[0]
    events = [
        {"event_type": "purchase", "item_id": ids[item], "timestamp": int(NOW_MS - 10**9 + time)}
        for item, time in zip(support.item.tolist(), support.timestamp_ms.tolist(), strict=True)
    ]
    assert call("POST", "/v1/events", json={"user_id": "ann", "events": events}).is_success
    for _ in range(2):  # adapted from the record, then from memory
        answer = call(
            "POST",
            "/v1/rank",
            json={"user_id": "ann", "items": hits, "query": book.queries.texts[tasks.query[0]]},
        ).json()
        scores = {item["id"]: item["score"] for item in answer["items"]}
        np.testing.assert_allclose([scores[i] for i in hits], evaluated, atol=1e-5)
        assert answer["n_support"] == len(support)
    nobody = call("POST", "/v1/rank", json={"user_id": "new", "items": hits, "query": "green tea"})
    assert nobody.json()["fallback"] == "prior"
    told = call(
        "POST",
        "/v1/rank",
        json={"user_id": "ann", "items": hits[:5], "query": "green tea", "explain": True},
    ).json()
    assert all(item["reasons"] for item in told["items"])


def test_an_item_that_training_never_saw_is_found_by_its_words(trained):
    import pyarrow as pa

    added = trained.with_items(
        pa.table({"item_id": ["new"], "category": ["green tea"], "price": [2.0]})
    )
    assert added.matcher is not None
    match = added.matcher.match("green tea")
    assert match.shape[0] == len(trained.catalogue) + 1
    assert match[-1, 1] == 1.0
    assert bool(torch.isfinite(match).all())
