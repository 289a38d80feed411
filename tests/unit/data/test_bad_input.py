"""What is wrong with a log is refused by name, or counted; nothing is half-written."""

import gzip
import json
import os
from pathlib import Path

import pytest

from raymeta.cli.main import run
from raymeta.data.prepare import prepare
from raymeta.data.schema import EventColumns, EventSchema, LogSchema
from raymeta.data.sources.files import Files
from raymeta.errors import ConfigError, DataError, SchemaError
from tests.helpers.logs import HEADER, events_of, mapped_schema, rejected_of, write_csv

GOOD = "u1,a,view,2024-01-01,"


def prepare_rows(tmp_path: Path, *rows: str) -> Path:
    log = write_csv(tmp_path / "events.csv", rows)
    prepare(Files([log], schema=mapped_schema()), tmp_path / "data")
    return tmp_path / "data"


def refusal(tmp_path: Path, log: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare(Files([log], schema=mapped_schema()), tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".data*")), "no broken folder is left"
    return str(caught.value)


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", ["u1,view,2024-01-01"], header="user,action,ts")
    assert refusal(tmp_path, log) == (
        "events.csv has no column 'sku' (for item_id); it has: user, action, ts. "
        "Set events.columns.item_id in schema.yaml to the name it has here."
    )


def test_a_misspelt_column_gets_a_suggestion(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", [GOOD], header="user,skus,action,ts,qty")
    assert "Did you mean 'skus'?" in refusal(tmp_path, log)


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl", "events.parquet"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert refusal(tmp_path, tmp_path / name) == f"{name} is empty. Give a file with rows."


def test_a_file_without_rows_has_no_event(tmp_path: Path) -> None:
    message = refusal(tmp_path, write_csv(tmp_path / "events.csv", []))
    assert message == (
        "events.csv: no event can be used, of 0 rows read. Give a log with at least one event."
    )


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    log = tmp_path / "events.csv"
    log.write_bytes(f"{HEADER}\n{GOOD}\nu1,café,view,2024-01-01,\n".encode("latin-1"))
    assert refusal(tmp_path, log) == (
        "events.csv is not UTF-8: line 3 has the byte 0xe9. "
        "Convert it, for example: iconv -f latin1 -t utf-8 OLD > NEW"
    )
    log = tmp_path / "events.jsonl"
    log.write_bytes('{"user": "u1"}\n{"user": "café"}\n'.encode("latin-1"))
    assert "events.jsonl is not UTF-8: line 2 has the byte 0xe9." in refusal(tmp_path, log)


def test_a_file_of_another_format_is_named(tmp_path: Path) -> None:
    log = tmp_path / "events.parquet"
    log.write_text(GOOD)
    assert refusal(tmp_path, log).startswith("events.parquet is not a Parquet file: ")
    log = tmp_path / "events.log"
    log.write_text(GOOD)
    assert refusal(tmp_path, log) == (
        "events.log: a file of this name is of no known format. "
        "Name it .csv, .tsv, .jsonl or .parquet (and .gz for the first three)."
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path, tmp_path / "gone.csv")


def test_a_file_without_one_readable_timestamp_is_a_wrong_file(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", ["u1,a,view,yesterday,", "u1,b,view,today,"])
    assert refusal(tmp_path, log) == (
        "events.csv: none of the first 2 rows can be used: timestamp missing or not readable "
        "(column 'ts', first value 'yesterday'). Give Unix seconds, milliseconds or ISO 8601, or "
        "set timestamp_format. Check which column is mapped to which name in schema.yaml."
    )


def test_a_file_of_undeclared_types_is_a_wrong_file(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", ["u1,a,dance,2024-01-01,"])
    assert refusal(tmp_path, log) == (
        "events.csv: none of the first 1 rows can be used: event type not declared "
        "(column 'action', first value 'dance'). List the shop's types under event_types, or map "
        "them by rename_event_types. Check which column is mapped to which name in schema.yaml."
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("u1,b,view,soon,", "timestamp missing or not readable"),
        ("u1,b,view,,", "timestamp missing or not readable"),
        ("u1,b,view,2024-02-30,", "timestamp missing or not readable"),
        ("u1,b,view,1704103260000000,", "timestamp out of range"),
        ("u1,b,dance,2024-01-01,", "event type not declared"),
        ("u1,b,,2024-01-01,", "event_type missing"),
        (",b,view,2024-01-01,", "user_id missing"),
        ("u1,  ,view,2024-01-01,", "item_id missing"),
        ("u1,b,view,2024-01-01,lots", "value is not a number"),
        (f"u1,{'b' * 513},view,2024-01-01,", "item_id longer than 512 characters"),
        (f"u1,{'b' * 100_000},view,2024-01-01,", "item_id longer than 512 characters"),
        ("u1,b,view", "3 fields where the header has 5"),
        (GOOD, "duplicate"),
    ],
)
def test_a_row_that_cannot_be_used_is_kept_with_its_reason_and_line(
    tmp_path: Path, row: str, reason: str
) -> None:
    data = prepare_rows(tmp_path, GOOD, row, "u1,c,view,2024-01-03,")
    assert [event["item_id"] for event in events_of(data)] == ["a", "c"]
    (refused,) = rejected_of(data)
    assert (refused["source"], refused["line"], refused["reason"]) == ("events.csv", 3, reason)
    assert len(refused["row"]) < 1000, "a huge field is cut where it is reported"
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["rejected"] == {reason: 1}


@pytest.mark.parametrize(
    ("query", "position", "propensity", "reason"),
    [
        ("q" * 70_000, "0", "1", "query longer than 65536 bytes"),
        ("q", "-1", "1", "position is not a whole number from 0 on"),
        ("q", "1.5", "1", "position is not a whole number from 0 on"),
        ("q", "first", "1", "position is not a number"),
        ("q", "0", "0", "propensity outside (0, 1]"),
        ("q", "0", "1.01", "propensity outside (0, 1]"),
    ],
)
def test_what_is_said_of_a_ranking_is_checked(
    tmp_path: Path, query: str, position: str, propensity: str, reason: str
) -> None:
    header = "user_id,item_id,event_type,timestamp,query,position,propensity"
    rows = [f"u,{i},click,2024-01-01" for i in "ab"]
    rows = [f"{rows[0]},q,3,0.5", f"{rows[1]},{query},{position},{propensity}"]
    names = {name: name for name in ("query", "position", "propensity")}
    schema = LogSchema(events=EventSchema(columns=EventColumns(**names)))
    log = write_csv(tmp_path / "log.csv", rows, header=header)
    prepare(Files([log], schema=schema), tmp_path / "data")
    assert [(r["line"], r["reason"]) for r in rejected_of(tmp_path / "data")] == [(3, reason)]
    (event,) = events_of(tmp_path / "data")
    assert (event["query"], event["position"], event["propensity"]) == ("q", 3, 0.5)


def test_lines_stay_right_after_malformed_rows(tmp_path: Path) -> None:
    data = prepare_rows(tmp_path, GOOD, "u1,b", "u1,b,view,soon,", "x,y", "u2,b,view,never,")
    assert sorted(row["line"] for row in rejected_of(data)) == [3, 4, 5, 6]


def test_json_lines_that_are_broken_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    good = '{"user": 7, "sku": "a", "action": "buy", "ts": 1704067200, "qty": 2}'
    other = '{"user": "u1", "sku": "b", "action": "view", "ts": "2024-01-01T00:00:00Z"}'
    log = tmp_path / "events.jsonl.gz"
    log.write_bytes(gzip.compress("\n".join([good, "{", "", "[1]", other]).encode()))
    prepare(Files([log], schema=mapped_schema()), tmp_path / "data")
    events = events_of(tmp_path / "data")
    assert sorted((e["user_id"], e["event_type"], e["value"]) for e in events) == [
        ("7", "purchase", 2.0),
        ("u1", "view", None),
    ]
    assert [(r["line"], r["reason"]) for r in rejected_of(tmp_path / "data")] == [
        (2, "not a JSON object"),
        (4, "not a JSON object"),
    ]


def test_items_are_checked_row_by_row(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", [GOOD])
    items = write_csv(
        tmp_path / "items.csv",
        ["a,1.5,x|y,A", "a,2,z,A again", ",3,,none", "b,cheap,,B", f"c,1,,{'t' * 70_000}"],
        header="sku,price,tags,title",
    )
    columns = {"price": "numeric", "tags": "multi_categorical", "title": "text"}
    schema = mapped_schema(columns=columns)
    prepare(Files([log], items=items, schema=schema), tmp_path / "data")
    assert [(r["line"], r["reason"]) for r in rejected_of(tmp_path / "data")] == [
        (4, "item_id missing in items.csv"),
        (3, "item_id repeated in items.csv"),
        (6, "title longer than 65536 bytes"),
        (5, "price is not a number (row kept without it)"),
    ]


def test_a_feature_that_the_table_lacks_is_refused(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", [GOOD])
    items = write_csv(tmp_path / "items.csv", ["a,1"], header="sku,price")
    with pytest.raises(ConfigError, match=r"items\.columns names 'colour', which items\.csv lacks"):
        prepare(
            Files([log], items=items, schema=mapped_schema(columns={"colour": "categorical"})),
            tmp_path / "data",
        )
    users = write_csv(tmp_path / "users.csv", ["a,1"], header="id,age")
    with pytest.raises(SchemaError, match=r"users\.csv has no column 'user_id'"):
        prepare(Files([log], users=users, schema=mapped_schema()), tmp_path / "data")


def test_a_user_with_one_event_is_kept_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_csv(tmp_path / "events.csv", ["u1,a,view,2024-01-01"], header="u,i,e,t")
    (tmp_path / "schema.yaml").write_text(
        "events: {columns: {user_id: u, item_id: i, event_type: e, timestamp: t}}\n"
    )
    arguments = ["--events", str(log), "--schema", str(tmp_path / "schema.yaml")]
    assert run(["prepare", "files", *arguments, "--out", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "1 event of 1 user on 1 item, in 1 visit" in out
    assert "1 user with one event only: kept in the data" in out


def test_what_stands_in_the_place_is_not_lost(tmp_path: Path) -> None:
    source = Files([write_csv(tmp_path / "events.csv", [GOOD])], schema=mapped_schema())
    out = tmp_path / "data"
    out.mkdir()
    (out / "thesis.txt").write_text("important")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is not empty and holds no data set"):
            prepare(source, out, overwrite=overwrite)
    (out / "thesis.txt").unlink()
    prepare(source, out)
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(DataError, match=r"holds a data set already.*--overwrite"):
        prepare(source, out)
    prepare(source, out, overwrite=True)
    assert (out / "manifest.json").read_bytes() == before


def test_an_interrupt_leaves_nothing_and_what_was_there_before(tmp_path: Path) -> None:
    source = Files([write_csv(tmp_path / "events.csv", [GOOD])], schema=mapped_schema())
    out = tmp_path / "data"

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "Writing tables":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, progress=interrupt)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.csv"]
    prepare(source, out)
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, overwrite=True, progress=interrupt)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "events.csv"]
    assert (out / "manifest.json").read_bytes() == before


def test_what_a_killed_run_left_is_cleared_and_a_running_one_is_not(tmp_path: Path) -> None:
    source = Files([write_csv(tmp_path / "events.csv", [GOOD])], schema=mapped_schema())
    dead = tmp_path / f".data.partial-{2**22 + 1}"  # above the largest process id of Linux
    alive = tmp_path / f".data.partial-{os.getppid()}"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "part").touch()
    prepare(source, tmp_path / "data")
    assert not dead.exists()
    assert alive.exists()


def test_the_command_ends_with_2_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "data")]
    assert run(["prepare", "files", *out]) == 2
    assert "No event file is given. " in capsys.readouterr().err.replace("\n", " ")
    assert run(["prepare", "complete-journey", "--events", "x.csv", *out]) == 2
    assert "--events means nothing to complete-journey." in capsys.readouterr().err
    assert run(["prepare", "movielens", *out]) == 2
    assert "movielens needs --path." in capsys.readouterr().err
    assert run(["data", "describe", str(tmp_path)]) == 2
    assert "holds no data set of raymeta" in capsys.readouterr().err
