"""Ads from the log to the endpoint: trained, scored beside baselines, served as it was scored."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.serving import ModelTable, ServingConfig
from raymeta.data.events import History
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.errors import ConfigError
from raymeta.evaluation.labelled import CutUsers, cut_users, predicted
from raymeta.evaluation.run import evaluate_artifact, protocol_facts
from raymeta.evaluation.scenarios.table import SCENARIOS, evaluation_settings
from raymeta.serve.models import Maker, load_models
from raymeta.serve.service import Service
from raymeta.train.run import train_in_process
from tests.helpers.feeds import FEED, write_feed
from tests.unit.serve.conftest import caller

Call = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_feed(tmp_path_factory.mktemp("feed"))


@pytest.fixture(scope="module")
def artifact(data) -> Artifact:
    train_in_process(FEED, data, out=data.parent / "artifact")
    return load_artifact(data.parent / "artifact")


@pytest.fixture(scope="module")
def split(data) -> TaskSplit:
    return load_task_split(data, FEED.data)


@pytest.fixture
def call(service: Service, maker: Maker, artifact: Artifact) -> Call:
    folders = {"default": {"ads": str(artifact.path)}}
    table = ModelTable.parse({"tenants": {"default": {"variants": folders}}}, source="test")
    service.use(load_models(table, config=ServingConfig(), maker=maker))
    return caller(service)


def events_of(artifact: Artifact, history: History) -> list[dict[str, Any]]:
    rows = zip(
        history.item.tolist(),
        history.event_type.tolist(),
        history.timestamp_ms.tolist(),
        history.value.tolist(),
        strict=True,
    )
    return [
        {
            "item_id": artifact.catalogue.item_ids[item],
            "event_type": artifact.event_types[kind],
            "timestamp": time,
            **({} if np.isnan(value) else {"value": value}),
        }
        for item, kind, time, value in rows
    ]


def users_features(data, user_id: str) -> dict[str, str]:
    rows = pq.read_table(data / "users.parquet").to_pylist()
    (row,) = [row for row in rows if row["user_id"] == user_id]
    return {name: value for name, value in row.items() if name != "user_id"}


def test_an_artifact_names_its_scenario_and_keeps_its_join(artifact, split):
    assert artifact.manifest["scenarios"] == ["ads"]
    assert artifact.view.feedback == split.view.feedback


def test_served_probabilities_are_those_that_were_scored(call, data, artifact, split):
    (cut,) = cut_users(split.test, [6], split.view)
    row = 0
    alone = CutUsers(6, cut.user_rows[:1], cut.supports[:1], cut.queries[:1])
    expected = predicted(artifact.algorithm, artifact.meta_params, alone, split.view)
    user_id = str(split.test.user_ids[cut.user_rows[row]])
    features = users_features(data, user_id)
    path = f"/v1/users/{user_id}"
    assert call("PUT", path, json={"features": features}).is_success
    events = events_of(artifact, cut.supports[row])
    for number in range(0, len(events), 5):
        body = {"user_id": user_id, "events": events[number : number + 5]}
        assert call("POST", "/v1/events", json=body).is_success
    query = cut.queries[row]
    for item, slot, p in zip(query.item, query.value, expected, strict=True):
        item_id = artifact.catalogue.item_ids[item]
        body = {"user_id": user_id, "items": [item_id], "slot": int(slot)}
        ranked = call("POST", "/v1/rank", json={**body, "scenario": "ads"}).json()
        assert ranked["n_support"] == 6
        probabilities = ranked["items"][0]["probabilities"]
        assert [probabilities[t] for t in ("click", "conversion")] == pytest.approx(p, abs=1e-5)
        told = call("POST", "/v1/predict", json={**body, "targets": ["conversion"]}).json()
        assert told["items"][0]["probabilities"] == {"conversion": pytest.approx(p[1], abs=1e-5)}


def test_ads_are_ordered_by_the_probability_of_a_click(call, artifact):
    items = list(artifact.catalogue.item_ids)
    body = {"user_id": "ann", "items": [*items, "nowhere"], "scenario": "ads", "slot": 2}
    answer = call("POST", "/v1/rank", json=body).json()
    clicks = [item["probabilities"]["click"] for item in answer["items"]]
    assert clicks == sorted(clicks, reverse=True)
    assert all(
        i["probabilities"]["conversion"] <= i["probabilities"]["click"] for i in answer["items"]
    )
    assert answer["unknown_items"] == ["nowhere"]


def test_what_the_model_gives_no_probability_of_is_refused(call, maker, artifact):
    body = {"user_id": "ann", "items": ["1"], "targets": ["purchase_intent"]}
    response = call("POST", "/v1/predict", json=body)
    assert response.status_code == 422
    assert "'intent'" in response.json()["detail"]
    folders = {"default": {"recommend": str(artifact.path)}}
    table = ModelTable.parse({"tenants": {"default": {"variants": folders}}}, source="test")
    with pytest.raises(ConfigError, match="was trained for ads"):
        load_models(table, config=ServingConfig(), maker=maker)


def test_it_is_scored_beside_baselines_and_reported(data, artifact, tmp_path):
    settings = evaluation_settings(FEED)
    scores = evaluate_artifact(artifact, data, settings)
    kind = SCENARIOS["ads"]
    result = {
        **kind.summarise(scores),
        "scenario": "ads",
        "protocol": protocol_facts(FEED.data, settings, name="feed", folds=1),
        "run": {"command": "x", "wall_s": 1.0, "peak_memory_mb": 1.0, "versions": {}},
    }
    assert set(result["methods"]) == {"adapted", "unadapted", *kind.baselines}
    chance = result["methods"]["base_rate"]["3"]
    assert chance["click_auc"]["mean"] == chance["click_gauc"]["mean"] == 0.5
    first = result["methods"]["adapted"]["0"], result["methods"]["unadapted"]["0"]
    assert first[0]["click_log_loss"] == first[1]["click_log_loss"]
    kind.write_report(result, scores, tmp_path / "report")
    made = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.html", "report.md", "results.json", "calibration.png", "curve.png"} <= made
    assert json.loads((tmp_path / "report/results.json").read_text())["num_users"]["6"] > 5
    tables, _ = kind.text_tables(result)
    assert tables[0].title == "Click log loss after so many impressions"
