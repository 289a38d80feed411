"""The exported log is a log that `prepare` reads."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from raymeta.data.prepare import prepare
from raymeta.data.schema import load_log_schema
from raymeta.data.sources.files import Files
from tests.unit.serve.test_ingress import problem, purchase

Call = Callable[..., httpx.Response]


def export(call: Call, *, users: int) -> str:
    """All pages, as a client fetches them."""
    lines, after = "", ""
    while True:
        response = call("GET", f"/v1/export/events?users={users}&after={after}")
        assert response.headers["content-type"].startswith("application/x-ndjson")
        lines += response.text
        after = response.headers.get("x-next-after", "")
        if not after:
            return lines


@pytest.mark.parametrize("users", [1, 2, 100])
def test_the_export_becomes_a_data_set(call: Call, tmp_path: Path, users: int) -> None:
    for number, user in enumerate(["a b", "ü", "zoë/1"]):
        events = [
            purchase(
                f"item{number}",
                value=2.5,
                place=f"branch {number}",
                timestamp=1_600_000_000_000 + number,
            ),
            {"event_type": "search", "query": "schuhe & mehr", "timestamp": 1_600_000_000_500},
        ]
        assert call("POST", "/v1/events", json={"user_id": user, "events": events}).is_success
    drawn = call("POST", "/v1/recommend", json={"user_id": "ü", "n": 2, "exploration": 1.0}).json()

    (tmp_path / "events.jsonl").write_text(export(call, users=users), encoding="utf-8")
    (tmp_path / "schema.yaml").write_text(
        "events:\n"
        "  columns: {value: value, query: query, ranking_id: ranking_id, position: position,\n"
        "    propensity: propensity, place: place}\n"
    )
    schema = load_log_schema(tmp_path / "schema.yaml")
    prepared = prepare(Files([tmp_path / "events.jsonl"], schema=schema), tmp_path / "out")
    rows = pq.read_table(prepared.path / "events").to_pylist()
    assert len(rows) == 8
    assert {row["user_id"] for row in rows} == {"a b", "ü", "zoë/1"}
    shown = [row for row in rows if row["event_type"] == "impression"]
    assert {row["ranking_id"] for row in shown} == {drawn["recommendation_id"]}
    assert {(row["position"], row["item_id"]): row["propensity"] for row in shown} == {
        (position, item["id"]): pytest.approx(item["propensity"])
        for position, item in enumerate(drawn["items"])
    }
    bought = {row["item_id"]: row["place"] for row in rows if row["event_type"] == "purchase"}
    assert bought == {f"item{number}": f"branch {number}" for number in range(3)}
    assert [row["query"] for row in rows if row["event_type"] == "search"] == ["schuhe & mehr"] * 3


def test_an_unknown_tenant_has_no_log(call: Call) -> None:
    problem(call("GET", "/v1/export/events?tenant=nobody"), 422)
