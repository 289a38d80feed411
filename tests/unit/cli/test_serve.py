"""`raymeta serve` and `raymeta bench`: what they refuse before anything starts, and new keys."""

import json
from pathlib import Path

import pytest
import yaml

from raymeta.cli.main import run
from raymeta.cli.serve import _store
from raymeta.config.serving import PostgresStoreConfig, RedisStoreConfig
from raymeta.serve.access import Keys


def test_a_new_key_opens_what_its_entry_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--new-key", "web"]) == 0
    shown = capsys.readouterr().out
    key = shown.splitlines()[0].rpartition(" ")[2]
    file = tmp_path / "keys.yaml"
    file.write_text(shown[shown.index("keys:") :])
    assert Keys.read(file).caller(key).name == "web"
    assert run(["serve", "--new-key", "web", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    file.write_text(yaml.safe_dump({"keys": [printed["entry"]]}))
    assert Keys.read(file).caller(printed["key"]).name == "web"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "No artifact is given."),
        (["serve", "--new-key", "no spaces"], "'name' is 'no spaces'"),
        (["serve", "nowhere"], "holds no manifest.json"),
        (["serve", "x", "--compat", "recombee"], "'compat.products.0' is 'recombee'"),
        (["bench", "serve"], "Give either the URL of a running endpoint or --artifact DIR."),
        (["bench", "serve", "http://127.0.0.1:1"], "No service answers at http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_served_or_measured(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_an_address_that_others_reach_needs_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymeta.serve.local._require_artifacts", lambda config: {})
    assert run(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "without API keys" in capsys.readouterr().err


def test_a_store_is_a_file_or_a_servers_url() -> None:
    assert _store("events.sqlite") == "events.sqlite"
    assert _store("redis://h:1/0") == RedisStoreConfig(url="redis://h:1/0")
    assert _store("postgresql://h/db") == PostgresStoreConfig(url="postgresql://h/db")
