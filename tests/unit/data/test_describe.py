"""`raymeta data describe`: true numbers, shown to people and to programs."""

import json
from pathlib import Path

import pytest

from raymeta.cli.main import run
from raymeta.data.describe import describe
from raymeta.data.prepare import prepare
from raymeta.data.sources.files import Files
from tests.helpers.logs import mapped_schema, write_csv


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    rows = [f"u{u},s{s},buy,2024-01-0{1 + s},1" for u in range(4) for s in range(u + 1)]
    rows += ["u0,s9,view,2024-02-01,", "u0,s9,dance,2024-02-01,", "u0,s9,dance,2024-02-02,"]
    log = write_csv(tmp_path / "log.csv", rows)
    items = write_csv(tmp_path / "items.csv", ["s0,Ant", "s7,Bee"], header="sku,title")
    schema = mapped_schema(columns={"title": "text"})
    prepare(Files([log], items=items, schema=schema), tmp_path / "data")
    return tmp_path / "data"


def test_it_counts_what_is_there(data_dir: Path) -> None:
    found = describe(data_dir)
    assert (found.first, found.last) == ("2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z")
    assert found.event_types == {"purchase": 10, "view": 1}
    top = [(item.item_id, item.title, item.events) for item in found.top_items]
    assert top == [("s0", "Ant", 4), ("s1", "s1", 3), ("s2", "s2", 2), ("s3", "s3", 1)]
    assert found.top_items[0].share == pytest.approx(0.4)
    assert found.median_events == 2.5
    ranges = [(b["from"], b["to"], b["users"]) for b in found.events_per_user]
    assert ranges == [(1, 1, 0), (2, 3, 3), (4, 7, 1)]
    (refused,) = found.rejected
    assert (refused.reason, refused.rows) == ("event type not declared", 2)
    assert (refused.example_source, refused.example_line) == ("log.csv", 13)


def test_people_and_programs_get_the_same(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "describe", str(data_dir), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counts"]["events"] == 11
    assert run(["data", "describe", str(data_dir)]) == 0
    out = capsys.readouterr().out
    assert "event type not declared" in out
    assert "first at log.csv:13" in out
    assert "Ant" in out
    assert "█" in out
