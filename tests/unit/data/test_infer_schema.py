"""`--infer-schema`: a first schema that reads the files it was made from, or says what is open."""

from pathlib import Path

import pytest
import yaml

from raymeta.cli.main import run
from raymeta.config.data import DataConfig
from raymeta.data.events import support_from_events
from raymeta.data.infer_schema import UNKNOWN, infer_schema
from raymeta.data.prepare import prepare
from raymeta.data.schema import load_log_schema
from raymeta.data.sources.files import Files
from raymeta.data.task_split import load_task_split
from raymeta.errors import SchemaError
from tests.helpers.logs import events_of


def test_the_guess_reads_the_files_it_was_made_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text(
        "Customer ID;SKU;Action;Created At;Session ID;Note\n"
        "c1;s1;View;2024-01-01 10:00;x;hi\nc1;s2;wishlist;2024-01-01 10:01;x;ho\n"
    )
    rows = [f"s{i};{i}.5;name number {i} of many;{'ab'[i % 2]}|c;{'rb'[i % 2]}" for i in range(60)]
    (tmp_path / "items.csv").write_text("\n".join(["sku;price;title;tags;colour", *rows]) + "\n")
    files = ["--events", str(tmp_path / "log.csv"), "--items", str(tmp_path / "items.csv")]
    arguments = ["prepare", "files", "--infer-schema", *files, "--out", str(tmp_path)]
    assert run(arguments) == 0
    assert "Check every line" in capsys.readouterr().out
    schema = load_log_schema(tmp_path / "schema.yaml")
    assert schema.events.columns.user_id == "Customer ID"
    assert schema.events.columns.visit_id == "Session ID"
    assert schema.events.event_types == ("wishlist",)
    assert {name: kind.value for name, kind in schema.items.columns.items()} == {
        "price": "numeric",
        "title": "text",
        "tags": "multi_categorical",
        "colour": "categorical",
    }
    prepare(
        Files([tmp_path / "log.csv"], items=tmp_path / "items.csv", schema=schema),
        tmp_path / "data",
    )
    assert [e["event_type"] for e in events_of(tmp_path / "data")] == ["view", "wishlist"]
    assert run(arguments) == 2, "an edited schema is not written over"
    assert "exists already" in capsys.readouterr().err


def test_a_column_that_cannot_be_guessed_is_left_open_and_refused_when_read(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("who,what,when\na,b,2024-01-01\n")
    schema = infer_schema([log])
    assert schema.events.columns.user_id == UNKNOWN
    with pytest.raises(SchemaError, match=f"no column '{UNKNOWN}' .*it has: who, what, when"):
        prepare(Files([log], schema=schema), tmp_path / "data")


def test_a_log_of_ratings_has_ratings(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("userId,movieId,rating,timestamp\n1,2,4,1260759144\n")
    schema = infer_schema([log])
    assert schema.events.event_type == "rating"
    assert schema.events.columns.value == "rating"
    assert yaml.safe_load(yaml.safe_dump(schema.model_dump(mode="json")))


def test_what_is_guessed_of_users_reaches_their_support(tmp_path: Path) -> None:
    """From three files and no schema to the encoded features of a test user."""
    log = [f"c{u},s{v % 7},buy,{1_700_000_000 + 86_400 * v}" for u in range(80) for v in range(5)]
    (tmp_path / "log.csv").write_text("\n".join(["customer_id,sku,event,time", *log]) + "\n")
    people = [
        f"c{u},{'fm'[u % 2]},{20 + u % 40},{'ab'[u % 2]}|c,note {u} of {u * u}" for u in range(80)
    ]
    (tmp_path / "people.csv").write_text(
        "\n".join(["customer_id,gender,age,hobbies,remark", *people]) + "\n"
    )
    schema = infer_schema([tmp_path / "log.csv"], users=tmp_path / "people.csv")
    assert schema.users.id == "customer_id"
    assert {name: kind.value for name, kind in schema.users.columns.items()} == {
        "gender": "categorical",
        "age": "numeric",
        "hobbies": "multi_categorical",
        "remark": "text",
    }
    source = Files([tmp_path / "log.csv"], users=tmp_path / "people.csv", schema=schema)
    prepare(source, tmp_path / "data")
    config = DataConfig(min_item_users=1, positive_events=("buy",), user_features=True)
    split = load_task_split(tmp_path / "data", config)
    vocab = split.user_vocab
    assert vocab is not None
    support = support_from_events(split.test, split.view)
    gender = [field.column for field in vocab.fields].index("gender")
    slot = vocab.field_of_slot.index(gender)
    rows = vocab.to_table().to_pylist()
    for user_id, index in zip(split.test.user_ids, support["user_index"], strict=True):
        assert rows[int(index[slot])]["value"] == "fm"[int(str(user_id)[1:]) % 2]
