"""The place of an event from a shop's log to the endpoint: a list of what the branch sells."""

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.config.algorithms import CaviaConfig
from raymeta.config.data import DataConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.config.serving import ModelTable, ServingConfig
from raymeta.data.prepare import prepare
from raymeta.data.schema import EventColumns, EventSchema, LogSchema
from raymeta.data.sources.files import Files
from raymeta.serve.models import Maker, load_models
from raymeta.serve.service import Service
from raymeta.train.run import train_in_process
from tests.helpers.places import ITEMS, shoppers
from tests.unit.serve.conftest import caller

Call = Callable[..., httpx.Response]
BRANCHES = ("north", "south", "east")
OWN = ITEMS // len(BRANCHES)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder: Path = tmp_path_factory.mktemp("branches")
    rows = [
        (f"u{number:03d}", f"i{item:02d}", "purchase", at + 1_700_000_000_000, place)
        for number, history in enumerate(shoppers(120, seed=3))
        for item, at, place in zip(
            history.item.tolist(),
            history.timestamp_ms.tolist(),
            [BRANCHES[p] if p >= 0 else None for p in history.place],
            strict=True,
        )
    ]
    columns = ["user_id", "item_id", "event_type", "timestamp", "branch"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "log.csv", index=False)
    schema = LogSchema(events=EventSchema(columns=EventColumns(place="branch")))
    prepare(Files([folder / "log.csv"], schema=schema), folder / "data")
    experiment = ExperimentConfig(
        name="branches",
        data=DataConfig(min_item_users=1, min_units=4, max_places=8, support_sizes=(0, 1, 2)),
        model=FactorizationConfig(dim=8, regularisation=20.0),
        algorithm=CaviaConfig(inner_lr=0.5, num_inner_steps=1),
        training=TrainingConfig(tasks_per_batch=16, max_outer_steps=4, validate_every=2),
    )
    train_in_process(experiment, folder / "data", out=folder / "artifact")
    return load_artifact(folder / "artifact")


@pytest.fixture
def call(service: Service, maker: Maker, artifact: Artifact) -> Call:
    folders = {"default": str(artifact.path)}
    table = ModelTable.parse({"tenants": {"default": {"variants": folders}}}, source="test")
    service.use(load_models(table, config=ServingConfig(), maker=maker))
    return caller(service)


def listed(call: Call, user_id: str, place: str | None) -> list[int]:
    """Numbers of the items for somebody who bought i00 at the place."""
    event = {"item_id": "i00", "event_type": "purchase", "event_id": "1", "timestamp": 1}
    if place is not None:
        event["place"] = place
    body = {"user_id": user_id, "n": 8, "events": [event]}
    answer = call("POST", "/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return [int(item["id"][1:]) for item in answer.json()["items"]]


@pytest.mark.parametrize("branch", range(len(BRANCHES)))
def test_a_list_follows_the_branch(call: Call, branch: int) -> None:
    here = listed(call, f"at-{branch}", BRANCHES[branch])
    own = [sum(item // OWN == b for item in here) for b in range(len(BRANCHES))]
    assert int(np.argmax(own)) == branch


def test_an_unknown_place_counts_as_none_and_is_kept(call: Call) -> None:
    assert listed(call, "lost", "the moon") == listed(call, "nowhere", None)
    exported = call("GET", "/v1/users/lost/export")
    assert "the moon" in exported.text


def test_the_artifact_says_which_places_it_knows(artifact: Artifact) -> None:
    assert sorted(artifact.view.places) == sorted(BRANCHES)
