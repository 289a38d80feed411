"""Whom adapting helps: quantiles, shares and slices by hand; the HTML page that shows them."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymeta.evaluation.gains import gain_distribution, slices
from raymeta.evaluation.report import write_report
from raymeta.evaluation.summary import summarise
from tests.unit.evaluation.test_report import full, scores, two_folds


def test_shares_and_quantiles_are_those_of_the_users() -> None:
    found = gain_distribution(np.array([-0.2, 0.0, 0.0, 0.1, 0.3]))
    assert found["better"] == 0.4
    assert found["worse"] == 0.2
    assert found["quantiles"]["0.5"] == 0.0
    assert found["quantiles"]["0.75"] == pytest.approx(0.1)


def test_slices_part_the_users_by_what_is_known_and_by_what_is_to_find() -> None:
    users = pd.DataFrame(
        {
            "num_known": [1, 1, 5, 5, 9, 9],
            "num_later": [2] * 6,
            "adapted": [0.1, 0.1, 0.4, 0.4, 0.6, 0.2],
            "unadapted": [0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
        }
    )
    found = slices(users, seed=0)
    by_known = [part for part in found if part["of"] == "num_known"]
    assert [(p["from"], p["to"], p["num_users"]) for p in by_known] == [
        (1, 1, 2),
        (5, 5, 2),
        (9, 9, 2),
    ]
    assert [p["gain"]["mean"] for p in by_known] == pytest.approx([0.0, 0.2, 0.1])
    assert by_known[1]["gain"] == pytest.approx({"mean": 0.2, "low": 0.2, "high": 0.2})
    assert [p["worse"] for p in by_known] == [0.0, 0.0, 0.5]
    # all have as much to find: they are one kind
    assert [p["num_users"] for p in found if p["of"] == "num_later"] == [6]


class _Outside(HTMLParser):
    """Everything that a page would load, and the text of its table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_says_what_the_tables_say(tmp_path: Path) -> None:
    result = full(summarise(two_folds()))
    result["run"] = {**result["run"], "command": "raymeta evaluate '<shop>.yaml'"}
    write_report(result, two_folds(), tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    seen = _Outside()
    seen.feed(page)
    assert seen.scripts == 0
    assert len(seen.loaded) == 2
    assert all(source.startswith("data:image/png;base64,") for source in seen.loaded)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "less popularity +0.200 ±0.000 *" in text
    assert "&lt;shop&gt;.yaml" in page
    assert "better 50.0%" in text


def test_without_an_adapted_model_there_is_no_gain_to_show(tmp_path: Path) -> None:
    alone = [scores("popularity", [0.3, 0.5], users=["a", "b"])]
    write_report(full(summarise(alone)), alone, tmp_path / "report")
    assert "Whom adapting helps" not in (tmp_path / "report" / "report.html").read_text()
    assert not (tmp_path / "report" / "gains.png").exists()
