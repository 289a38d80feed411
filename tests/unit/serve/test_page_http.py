"""The page at `/`: what it may load, that its parts fit together, and what its data routes say."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from raymeta.errors import ConfigError
from raymeta.serve.access import Keys
from raymeta.serve.households import read_households
from raymeta.serve.ingress import create_app
from raymeta.serve.schemas.page import Household, Households
from raymeta.serve.service import Service
from tests.unit.serve.conftest import ITEM_IDS, caller
from tests.unit.serve.test_access import KEYS, as_key
from tests.unit.serve.test_ingress import problem

HOUSEHOLDS = Households(
    model_version="small-1",
    households=[
        Household(
            user_id="h", events=[], positive=[], later=["item1"], ndcg_at_10={"popularity": [0.5]}
        )
    ],
)


PAGES = ("/", "/ops", "/docs")


def page_paths(service: Service) -> list[str]:
    """Every path of the page: its files and its data."""
    paths = [route.path for route in create_app(service).routes if isinstance(route, Route)]
    return [p for p in paths if p in PAGES or p.startswith(("/page/", "/playground/"))]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_nothing_from_elsewhere_and_nothing_inline(
    service: Service, call: Callable[..., httpx.Response], path: str
) -> None:
    page = call("GET", path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(
        part.split(" ", 1) for part in page.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert not re.search(r"<style|\son\w+=|\sstyle=", page.text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page.text)
    files = [path for path in page_paths(service) if path.startswith("/page/")]
    for path in files:
        file = call("GET", path)
        assert file.headers["content-security-policy"] == page.headers["content-security-policy"]
        assert file.headers["x-content-type-options"] == "nosniff"
        # the namespace of SVG is a name, not an address
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.text), path


def test_every_file_that_the_page_names_is_served_and_every_module_is_used(
    service: Service, call: Callable[..., httpx.Response]
) -> None:
    files = {path for path in page_paths(service) if path.startswith("/page/")}
    texts = [call("GET", path).text for path in PAGES]
    named = {name for text in texts for name in re.findall(r'(?:src|href)="(/page/[^"]+)"', text)}
    waiting = [path for path in named if path.endswith(".js")]
    while waiting:
        for module in re.findall(r'from "\./([^"]+)"', call("GET", waiting.pop()).text):
            if (path := f"/page/{module}") not in named:
                named.add(path)
                waiting.append(path)
    assert named == files
    assert len(files) > 5


@pytest.mark.parametrize(
    ("path", "main"), [("/", "app.js"), ("/ops", "ops.js"), ("/docs", "docs.js")]
)
def test_every_element_that_a_module_asks_for_is_in_its_page(
    call: Callable[..., httpx.Response], path: str, main: str
) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', call("GET", path).text))
    modules, asked = [main], set()
    for module in modules:
        text = call("GET", f"/page/{module}").text
        asked |= set(re.findall(r'byId\("([^"]+)"\)', text))
        modules += [m for m in re.findall(r'from "\./([^"]+)"', text) if m not in modules]
    assert asked <= ids
    assert len(asked) > 5


def test_its_files_need_no_key_and_its_data_needs_one_that_reads(
    make_service: Callable[..., Service],
) -> None:
    guarded = make_service(keys=KEYS)
    call = caller(guarded)
    data = []
    for path in page_paths(guarded):
        if not path.startswith("/playground/"):
            assert call("GET", path).status_code == 200, path
            continue
        data.append(path)
        query = {"item_id": "item1"}
        assert "no API key" in problem(call("GET", path, params=query), 401)["detail"]
        refused = call("GET", path, params=query, headers=as_key("writer"))
        assert "'read'" in problem(refused, 403)["detail"]
        others = call("GET", path, params={**query, "tenant": "other"}, headers=as_key("mine"))
        assert "'other'" in problem(others, 403)["detail"]
    assert len(data) == 4


def test_the_shop_tells_its_categories_and_what_the_model_learns_from(
    call: Callable[..., httpx.Response],
) -> None:
    assert call("GET", "/playground/shop").json() == {
        "num_items": 8,
        "categories": [{"name": "blue", "num_items": 4}, {"name": "red", "num_items": 4}],
        "adapts_to": ["purchase"],
        "can_replay": False,
    }


@pytest.mark.parametrize(
    ("query", "expected", "total"),
    [
        ({}, list(ITEM_IDS), 8),  # item0 is best for anybody, then item1, ...
        ({"n": 2, "offset": 3}, ["item3", "item4"], 8),
        ({"category": "blue"}, ["item1", "item3", "item5", "item7"], 4),
        ({"words": "ITEM3"}, ["item3"], 1),
        ({"words": "item red", "n": 1}, ["item0"], 4),
        ({"words": "item3", "category": "red"}, [], 0),
        ({"category": "green"}, [], 0),
    ],
)
def test_a_shelf(
    call: Callable[..., httpx.Response], query: dict[str, Any], expected: list[str], total: int
) -> None:
    shelf = call("GET", "/playground/items", params=query).json()
    assert [item["item_id"] for item in shelf["items"]] == expected
    assert shelf["total"] == total


def test_cards_come_in_the_order_asked_for_and_an_unknown_item_by_its_id(
    call: Callable[..., httpx.Response],
) -> None:
    cards = call("GET", "/playground/cards", params={"item_id": ["item5", "none", "item0"]}).json()
    assert [(card["item_id"], card["category"], card["price"]) for card in cards] == [
        ("item5", "blue", 5.0),
        ("none", None, None),
        ("item0", "red", 0.0),
    ]
    assert cards[1]["title"] == "none"


def test_the_shop_s_changes_are_on_the_shelf(call: Callable[..., httpx.Response]) -> None:
    assert call("GET", "/playground/shop").json()["num_items"] == 8
    call("DELETE", "/v1/items/item0")
    call("PATCH", "/v1/items/item1", json={"available": False})
    call("PATCH", "/v1/items/item2", json={"features": {"category": "green", "price": 9.5}})
    features = {"category": "green", "price": 1.0}
    call("PUT", "/v1/items/new", json={"features": features})
    shelf = call("GET", "/playground/items").json()["items"]
    assert [item["item_id"] for item in shelf] == [*ITEM_IDS[2:], "new"]
    assert (shelf[0]["category"], shelf[0]["price"]) == ("green", 9.5)
    categories = call("GET", "/playground/shop").json()["categories"]
    assert {c["name"]: c["num_items"] for c in categories} == {"blue": 3, "red": 2, "green": 2}


def test_households_are_served_where_the_service_has_them(
    make_service: Callable[..., Service], call: Callable[..., httpx.Response]
) -> None:
    missing = problem(call("GET", "/playground/households"), 422)
    assert "--playground" in missing["detail"]
    service = make_service(keys=Keys())
    service.households = HOUSEHOLDS
    having = caller(service)
    assert having("GET", "/playground/households").json() == HOUSEHOLDS.model_dump(mode="json")
    assert having("GET", "/playground/shop").json()["can_replay"] is True
    service.households = HOUSEHOLDS.model_copy(update={"model_version": "another"})
    assert having("GET", "/playground/shop").json()["can_replay"] is False


def test_a_file_of_households_is_read_back_and_a_wrong_one_refused(tmp_path: Any) -> None:
    file = tmp_path / "households.json"
    file.write_text(HOUSEHOLDS.model_dump_json())
    assert read_households(file) == HOUSEHOLDS
    assert read_households(None) is None
    for text in ("{", "[]", '{"model_version": "1", "households": []}'):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"cannot be read from .*--playground DATA_DIR"):
            read_households(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_households(tmp_path / "none.json")
