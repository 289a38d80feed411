"""The operator's page and the page of the routes, in a real browser."""

import time
from typing import Any

import httpx
import pytest

from raymeta.observability import metrics
from tests.e2e.conftest import Serving
from tests.helpers.browser import Page, axe_source
from tests.helpers.exposition import Replica

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_operator_sees_what_followed_from_the_lists(
    driver: Any, serving: Serving, request: pytest.FixtureRequest
) -> None:
    replicas = [Replica("a"), Replica("b")]
    for replica, seconds in zip(replicas, (0.0015, 0.12), strict=True):
        replica.set(metrics.MODEL_LOADED, (), time.time() - 300.0)
        for _ in range(50):
            replica.observe(metrics.REQUEST_SECONDS, ("/v1/recommend", "200"), seconds)
            replica.add(metrics.ANSWERS, ("default", "default", "none"), 1)
        replica.add(metrics.ANSWERS, ("default", "default", "store"), 25)
        replica.add(metrics.STATE_LOOKUPS, ("hit",), 30)
        replica.add(metrics.STATE_LOOKUPS, ("miss",), 10)
    with serving(exported=lambda: [replica.text() for replica in replicas]) as address:
        page = Page(driver, address)
        page.open()
        for act in ("title", "purchase"):
            page.click(f"#list > .row:nth-child(2) .{act}")
        driver.get(f"{address}/ops")
        page.settled()
        page.until(lambda: page.all("#latency tbody td"))
        facts = dict(
            zip(
                [name.text for name in page.all("#now-facts dt")],
                [value.text for value in page.all("#now-facts dd")],
                strict=True,
            )
        )
        assert facts["Replicas"] == "2"
        assert facts["Lists answered"] == "150"
        assert facts["Of them for anybody"] == "33.3%"
        assert facts["State found in memory"] == "75.0%"
        assert facts["Models loaded"] == "5 minutes ago"
        row = page.text("#latency tbody tr:nth-child(2)")
        assert row == "/v1/recommend 100 2.0 ms 145 ms 149 ms 0"
        assert "the store did not answer: 50" in page.text("#fallbacks tbody")
        page.click("#lately")
        assert "ten seconds after" in page.text("#now-note")
        page.click("#since-start")
        assert "32 events in 30 days" in page.one("#days svg").get_attribute("aria-label")
        assert "30 impressions still open" in page.text("#live-note")
        assert page.text("#split") == "the split is as declared"
        cells = [cell.text for cell in page.all("#live tbody th, #live tbody td")]
        assert cells[:5] == ["default", "0", "0", "0 (–)", "0 (–)"]
        for field in ("#click-hours", "#conversion-hours"):
            box = page.one(field)
            box.clear()
            box.send_keys("0.001")
        ended = time.monotonic() + 3.6 + 1.0  # both windows, and what the clocks may differ by
        page.until(lambda: time.monotonic() > ended)
        page.click("#windows button")
        cells = [cell.text for cell in page.all("#live tbody th, #live tbody td")]
        assert cells[:5] == ["default", "1", "30", "1 (3.3%)", "1 (3.3%)"]
        assert cells[5].startswith("100.0% (20.7% to 100.0%)")  # Wilson, of one user
        assert page.one("#models .chart svg").get_attribute("aria-label").startswith("nDCG@10")
        serious, num_passed = page.checked_by_axe(axe_source(request.config.cache.mkdir("axe")))
        assert serious == []
        assert num_passed > 20
        assert page.complaints() == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_routes_are_all_described_from_this_service_alone(
    page: Page, request: pytest.FixtureRequest, width: int, dark: bool
) -> None:
    page.emulate(width=width, dark=dark)
    page.driver.get(f"{page.url}/docs")
    page.settled()
    described = httpx.get(f"{page.url}/openapi.json").json()
    count = sum(len(methods) for methods in described["paths"].values())
    assert len(page.all("#routes .docs-item")) == count > 20
    assert len(page.all("#schemas .docs-item")) == len(described["components"]["schemas"])
    loaded: list[str] = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert len(loaded) > 3
    assert all(name.startswith(f"{page.url}/") for name in loaded)
    page.one("#words").send_keys("post recommend")
    page.click("#routes .docs-item:not([hidden]) summary")
    opened = page.text("#routes .docs-item[open]")
    assert "/v1/recommend" in opened
    page.click("#routes .docs-item[open] a[href='#schema-RecommendRequest']")
    assert "exclude_seen" in page.text("#schema-RecommendRequest")
    serious, num_passed = page.checked_by_axe(axe_source(request.config.cache.mkdir("axe")))
    assert serious == []
    assert num_passed > 15
    wider = page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0  # less by a scroll bar
