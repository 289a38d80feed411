"""From a generated log to answers over HTTP, by the commands: every type of event goes the way."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from raymeta.artifact import Artifact, load_artifact
from raymeta.data.episodes import cut
from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.evaluation.adapted import AdaptedScorer
from raymeta.runtime import free_port
from tests.helpers.logs import tasks_of
from tests.helpers.runs import ROOT, Command, command

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EXPERIMENT = ROOT / "tune_configs" / "experiments" / "synthetic_shop.yaml"
VISITS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop, prepared and trained on."""
    folder = tmp_path_factory.mktemp("shop")
    run("prepare", "synthetic", "--out", "data", folder=folder)
    shorter = ("--set", "training.max_outer_steps=25")
    run("train", EXPERIMENT, "--data", "data", "--out", "run", *shorter, folder=folder)
    return folder


def run(*words: object, folder: Path) -> dict[str, Any]:
    """One command to its end; what it says with `--json`."""
    with command(*words, "--json", folder=folder) as started:
        assert started.wait(timeout_s=400) == 0, started.output()
        result: dict[str, Any] = json.loads(last_line(started))
        return result


def last_line(started: Command) -> str:
    return started.output().strip().splitlines()[-1]


def test_the_report_has_ours_well_above_popularity(folder: Path) -> None:
    options = ("--support-sizes", "0,1,3,5", "--baselines", "popularity,item_knn")
    result = run("evaluate", "run/artifact", "--data", "data", *options, folder=folder)
    for method, by_size in result["methods"].items():
        print(method, {v: round(by_size[v]["ndcg_at_10"]["mean"], 3) for v in by_size})
    for visits in ("3", "5"):
        difference = result["differences"]["popularity"][visits]["ndcg_at_10"]
        assert difference["low"] > 0.03, f"less popularity after {visits} visits"
    report = folder / "run" / "report"
    assert {path.suffix for path in report.iterdir()} >= {".json", ".md", ".png"}


@dataclass(frozen=True)
class Served:
    client: httpx.Client
    artifact: Artifact
    split: TaskSplit
    log: dict[str, Any]
    item_ids: list[str]

    def post(self, route: str, **body: Any) -> dict[str, Any]:
        response = self.client.post(route, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def events_of(self, user: str) -> list[dict[str, Any]]:
        """The first visits of a user in the log, as a request carries them."""
        row, events = self.log[user], []
        for at in range(np.searchsorted(row["visit"], VISITS)):
            item = row["item"][at]
            event = {
                "item_id": None if item is None or item < 0 else self.item_ids[item],
                "event_type": self.split.event_types[row["event_type"][at]],
                "timestamp": row["timestamp_ms"][at],
                **{n: row[n][at] for n in ("query", "ranking_id", "position", "propensity")},
            }
            events.append({name: value for name, value in event.items() if value is not None})
        return events


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    port = free_port()
    options = ("--port", port, "--store", "events.sqlite", "--json")
    with command("serve", "run/artifact", *options, folder=folder) as server:
        server.wait_until(lambda: '"url"' in server.output(), timeout_s=180)
        artifact = load_artifact(folder / "run" / "artifact")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
            yield Served(
                client,
                artifact,
                load_task_split(folder / "data", artifact.experiment.data),
                tasks_of(folder / "data"),
                pq.read_table(folder / "data" / "tasks" / "items.parquet")["item_id"].to_pylist(),
            )
        assert server.ctrl_c() == 0, server.output()
        assert server.survivors(after_s=30) == []


def test_served_scores_are_those_of_the_evaluation(served: Served) -> None:
    split, artifact = served.split, served.artifact
    scorer = AdaptedScorer(artifact.algorithm, artifact.meta_params, view=artifact.view)
    sent: set[str] = set()
    for user, history in list(zip(split.test.user_ids, split.test, strict=True))[:8]:
        events = served.events_of(str(user))
        sent |= {event["event_type"] for event in events}
        answer = served.post("/v1/events", user_id=str(user), events=events)
        assert answer["accepted"] == len(events)
        shown = served.post("/v1/recommend", user_id=str(user), n=500, exclude_seen=False)
        support, _ = cut(history, VISITS, unit="visits", positive_types=split.positive_types)
        (expected,) = scorer.score([support])
        scores = {item["id"]: item["score"] for item in shown["items"]}
        found = np.array([scores[item] for item in artifact.catalogue.item_ids])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert [item["id"] for item in shown["items"]] == sorted(scores, key=lambda i: -scores[i])
    assert sent == {"view", "click", "cart", "purchase", "search", "impression"}


def test_what_was_only_shown_or_searched_is_still_recommended(served: Served) -> None:
    item, other = served.artifact.catalogue.item_ids[:2]
    events = [
        {"event_type": "search", "query": "lamps"},
        {"event_type": "impression", "item_id": item, "position": 0, "propensity": 1.0},
        {"event_type": "view", "item_id": other},
    ]
    answer = served.post("/v1/recommend", user_id="looks", n=500, events=events)
    ids = {entry["id"] for entry in answer["items"]}
    assert item in ids
    assert other not in ids
    assert answer["n_support"] == 1
    assert answer["fallback"] is None
