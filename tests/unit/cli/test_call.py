"""`raymeta call` against a running service: what it prints, and what it refuses."""

import hashlib
import json
from collections.abc import Callable, Iterator

import pytest

from raymeta.cli.main import run
from raymeta.serve.access import KeyConfig, Keys, Scope
from raymeta.serve.ingress import create_app
from raymeta.serve.service import Service
from tests.helpers.http import listening
from tests.unit.serve.conftest import (  # noqa: F401
    artifact,
    clock,
    executor,
    make_service,
    maker,
    store,
)


@pytest.fixture
def url(make_service: Callable[..., Service]) -> Iterator[str]:  # noqa: F811
    sha256 = hashlib.sha256(b"secret").hexdigest()
    keys = Keys([KeyConfig(name="shop", sha256=sha256, scopes=(Scope.READ, Scope.WRITE))])
    with listening(create_app(make_service(keys=keys))) as url:
        yield url


@pytest.fixture
def call(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """`call("recommend", "ann")`: what stdout shows, or stderr where it ends with `code`."""
    monkeypatch.setenv("RAYMETA_API_KEY", "secret")
    monkeypatch.setenv("COLUMNS", "120")

    def make(*words: str, code: int = 0) -> str:
        assert run(["call", *words, "--url", url]) == code
        shown = capsys.readouterr()
        assert (shown.out == "") is (code != 0)
        return shown.err if code else shown.out

    return make


def ids(line: str) -> list[str]:
    return [item["id"] for item in json.loads(line)["items"]]


def test_events_move_the_next_answer(call: Callable[..., str]) -> None:
    assert ids(call("recommend", "ann", "--n", "1", "--json")) == ["item0"]
    added = json.loads(call("events", "ann", "item2", "item2", "--type", "purchase", "--json"))
    assert (added["accepted"], added["state_version"]) == (2, 1)
    assert ids(call("recommend", "ann", "--n", "1", "--json")) == ["item3"]
    assert ids(call("rank", "ann", "item0", "item3", "--json")) == ["item3", "item0"]
    assert ids(call("session", "item4", "--n", "1", "--json")) == ["item5"]


def test_a_list_is_shown_as_a_table_with_what_moved_it(call: Callable[..., str]) -> None:
    call("events", "ann", "item2", "--place", "branch 7")
    shown = call("recommend", "ann", "--n", "2", "--explain")
    assert "item3" in shown
    assert "purchase of item2 (+1.00)" in shown
    assert '"n_support": 1' in shown


def test_only_items_of_a_feature(call: Callable[..., str]) -> None:
    words = ("recommend", "ann", "--where", "category=blue", "--where", "price=3", "--json")
    assert ids(call(*words)) == ["item3"]


def test_any_request(call: Callable[..., str]) -> None:
    call("request", "PATCH", "/v1/items/item0", '{"available": false}')
    assert ids(call("recommend", "ann", "--n", "1", "--json")) == ["item1"]
    shown = json.loads(call("request", "get", "/v1/items/item0"))
    assert shown["available"] is False


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("recommend",), 2, "Missing argument"),
        (("recommend", "ann", "--n", "0"), 2, "Input should be greater than or equal to 1"),
        (("recommend", "ann", "--n", "99"), 2, "n is 99; at most 20 are taken in one request"),
        (("recommend", "ann", "--where", "red"), 2, "Write FEATURE=VALUE"),
        (("recommend", "ann", "--where", "colour=red"), 2, "No item has the feature 'colour'"),
        (("events", "ann", "item1", "--type", "smile"), 2, "'smile', which no model knows"),
        (("events", "", "item1"), 2, "user_id: String should have at least 1 character"),
        (("request", "POST", "/v1/events", "{"), 2, "The body is not JSON"),
        (("request", "POST", "/v1/events", "[]"), 2, "Write a JSON object"),
        (("request", "POST", "/v1/events", "{}"), 2, "user_id: is missing"),
        (("request", "DELETE", "/v1/users/ann"), 1, "has not the scope 'admin'"),
        (("request", "GET", "/v1/users/ann"), 1, "There are no events of user 'ann'"),
        (("recommend", "ann", "--tenant", "nowhere"), 2, "There is no tenant 'nowhere'"),
        (("recommend", "ann", "--key", "wrong"), 1, "The API key is not known"),
    ],
)
def test_refusals_say_why(call: Callable[..., str], words: tuple[str, ...], code: int, text: str):
    assert text in " ".join(call(*words, code=code).split())


def test_no_service(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymeta.client.clients.time.sleep", lambda seconds: None)
    assert run(["call", "recommend", "ann", "--url", "http://127.0.0.1:1"]) == 1
    assert "No service answers at http://127.0.0.1:1/" in capsys.readouterr().err
    assert run(["call", "recommend", "ann", "--url", "localhost"]) == 2
    assert "Write it with its scheme" in capsys.readouterr().err
