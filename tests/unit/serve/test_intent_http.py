"""Purchase intent from the artifact to the endpoint: served as it is scored."""

from collections.abc import Callable

import httpx
import numpy as np
import pyarrow as pa
import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.serving import ModelTable, ServingConfig
from raymeta.data.events import History, support_from_events
from raymeta.data.task_split import load_task_split
from raymeta.evaluation.intents import cut_after_visits, end_of, predicted
from raymeta.serve.models import Maker, load_models
from raymeta.serve.service import Service
from raymeta.train.run import train_in_process
from tests.helpers.buyers import BUYERS, DAY_MS, write_buyers
from tests.helpers.clocks import Clock
from tests.unit.serve.conftest import caller

Call = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buyers")
    write_buyers(folder, spread=1.0, num_users=60, num_days=40)
    return folder


@pytest.fixture(scope="module")
def artifact(data) -> Artifact:
    shorter = BUYERS.training.model_copy(update={"max_outer_steps": 4, "validate_every": 2})
    experiment = BUYERS.model_copy(update={"training": shorter})
    train_in_process(experiment, data, out=data / "artifact")
    return load_artifact(data / "artifact")


@pytest.fixture
def call(service: Service, maker: Maker, artifact: Artifact) -> Call:
    folders = {"default": {"intent": str(artifact.path)}}
    table = ModelTable.parse({"tenants": {"default": {"variants": folders}}}, source="test")
    service.use(load_models(table, config=ServingConfig(), maker=maker))
    return caller(service)


def test_served_probabilities_are_those_that_are_scored_at_the_same_moment(
    call: Call, clock: Clock, data, artifact: Artifact
) -> None:
    split = load_task_split(data, BUYERS.data)
    (cut,) = cut_after_visits(split.test, [5], split.view, end_ms=end_of(split.test))
    row = max(range(len(cut)), key=lambda r: len(cut.queries[r]))
    expected = predicted(artifact.algorithm, artifact.meta_params, cut, split.view)
    expected = expected[cut.user == row]
    history = cut.supports[row]
    item_ids = artifact.catalogue.item_ids
    events = [
        {"item_id": item_ids[item], "event_type": "purchase", "timestamp": time}
        for item, time in zip(history.item.tolist(), history.timestamp_ms.tolist(), strict=True)
    ]
    for number in range(0, len(events), 5):
        body = {"user_id": "ann", "events": events[number : number + 5]}
        assert call("POST", "/v1/events", json=body).is_success
    category = artifact.view.intent.category_of_item
    for now_ms, p in zip(cut.queries[row].now_ms.tolist(), expected, strict=True):
        clock.at_ms = now_ms
        body = {"user_id": "ann", "items": list(item_ids), "targets": ["purchase_intent"]}
        answer = call("POST", "/v1/predict", json=body).json()
        told = {item["id"]: item["probabilities"]["purchase_intent"] for item in answer["items"]}
        found = [told[item_id] for item_id in item_ids]
        assert found == pytest.approx(p[category], abs=1e-5)
        assert answer["n_support"] == 5
        assert list(told.values()) == sorted(told.values(), reverse=True)


def test_an_item_of_no_known_category_has_no_probability(call: Call, artifact: Artifact) -> None:
    body = {"user_id": "bob", "items": ["i000", "nowhere"], "targets": ["purchase_intent"]}
    answer = call("POST", "/v1/predict", json=body).json()
    assert [item["id"] for item in answer["items"]] == ["i000"]
    assert answer["unknown_items"] == ["nowhere"]
    assert answer["fallback"] == "prior"


def test_a_new_item_counts_by_its_category(artifact: Artifact) -> None:
    items = pa.table({"item_id": ["new", "other"], "category": ["c2", "not sold before"]})
    larger = artifact.with_items(items)
    view = larger.view.intent
    assert view is not None
    place = view.categories.index("c2")
    assert view.category_of_item[-2:].tolist() == [place, -1]
    history = History(
        item=np.array([len(artifact.catalogue), len(artifact.catalogue) + 1]),
        event_type=np.zeros(2, np.int64),
        timestamp_ms=np.array([DAY_MS, DAY_MS]),
        value=np.full(2, np.nan, np.float32),
        visit=np.full(2, -1),
    )
    support = support_from_events([history], larger.view)
    assert support["now_bought"].sum() == support["now_bought"][0, place] == 1
    state = larger.algorithm.adapt(larger.meta_params, support)
    scores = larger.algorithm.score(larger.meta_params, state)[0]
    of_old = artifact.view.intent.category_of_item.tolist().index(place)
    assert scores[-2] == scores[of_old]
    assert scores[-1] < scores[:-1].min()
