"""The page in a real browser, against a real artifact: a visitor's acts move the list.

The shop has four groups of items that are bought together; popularity knows nothing of groups, so
whatever moves a group up was learned from the visitor.
"""

import hashlib
import math
from typing import Any

import numpy as np
import pytest

from raymeta.artifact import Artifact
from raymeta.data.events import History
from raymeta.evaluation.adapted import AdaptedScorer
from raymeta.evaluation.metrics import ndcg_of_list
from raymeta.serve.access import KeyConfig, Keys, Scope
from raymeta.serve.schemas.page import Household, Households
from tests.e2e.conftest import CATEGORIES, Serving
from tests.helpers.browser import ENTER, TAB, Page, axe_source

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REPETITIONS = 20
CLICKS = 2


def weight(page: Page, category: str) -> float:
    """How high a category stands in the ten: 1 / log2(place + 1), summed over its places."""
    rows = page.all("#list > .row")
    assert len(rows) == 10
    return sum(
        1.0 / math.log2(place + 2)
        for place, row in enumerate(rows)
        if row.get_attribute("data-category") == category
    )


def buy(page: Page, category: str, places: range) -> None:
    page.click(f'#chips [data-category="{category}"]')
    for place in places:
        page.click(f"#shelf .card:nth-child({place + 1}) .purchase")


def test_clicks_on_a_category_move_it_up_by_more_than_the_same_clicks_elsewhere(
    page: Page,
) -> None:
    differences = []
    for repetition in range(REPETITIONS):
        mine = CATEGORIES[repetition % 4]
        other = CATEGORIES[(repetition + 1 + repetition // 4 % 3) % 4]
        first = repetition // 4
        moved = []
        for bought in (mine, other):
            page.click("#forget")
            before = weight(page, mine)
            buy(page, bought, range(first, first + CLICKS))
            assert "adapted to you" in page.text("#list-state")
            moved.append(weight(page, mine) - before)
        differences.append(moved[0] - moved[1])
    assert len(differences) == REPETITIONS
    assert min(differences) > 0
    print(
        f"\nmoved up by {np.mean(differences):.2f} more on average, {min(differences):.2f} at least"
    )


def test_what_moved_is_marked_with_how_far_and_why(page: Page) -> None:
    before = page.ids("#list > .row")
    assert [row.text for row in page.all("#list .move")] == [""] * 10
    buy(page, "Cheese", range(1))
    after = page.ids("#list > .row")
    assert after != before
    marks = [mark.text for mark in page.all("#list .move")]
    for place, (item, mark) in enumerate(zip(after, marks, strict=True)):
        if item in before:
            way = before.index(item) - place
            expected = "" if way == 0 else f"{'▲' if way > 0 else '▼'} {abs(way)}"
            assert mark.replace("\nup by", "").split("\n")[0] in (expected, "=")
        else:
            assert mark.startswith(("▲", "new"))
    assert "You bought Cheese number" in page.text("#list > .row:first-child .why")
    gone = [item for item in before if item not in after]
    assert page.text("#gone").count("(was ") == len(gone) > 0
    facts = dict(zip([t.text for t in page.all("#facts dt")], page.all("#facts dd"), strict=True))
    assert facts["Support size"].text == "1"
    assert facts["State version"].text == "2"  # what was shown at first, and this
    assert facts["In the server"].text.endswith(" ms")


def test_forget_me_gives_the_prior_and_shopping_on_starts_anew(page: Page) -> None:
    anybody = page.ids("#list > .row")
    buy(page, "Bread", range(2))
    adapted = page.ids("#list > .row")
    assert adapted != anybody
    page.reload()
    assert page.ids("#list > .row") == adapted  # the visitor is known again
    page.click("#forget")
    # two purchases, and the lists that were shown: at first, after each, and after coming back
    assert "42 events erased" in page.said()
    assert page.ids("#list > .row") == anybody
    assert page.text("#list-state") == "for anybody"
    page.reload()
    assert page.ids("#list > .row") == anybody
    buy(page, "Bread", range(2))
    assert page.ids("#list > .row") == adapted


def test_a_search_is_ordered_for_the_visitor_and_says_what_the_model_lacks(page: Page) -> None:
    page.search("number 3,")
    anybody = page.ids("#shelf > .card")
    assert len(anybody) == 4
    assert "as for anybody, so far" in page.text("#search-note")
    assert "no search head" in page.text("#search-note")
    last = anybody[-1]
    category = page.one(f'#shelf [data-id="{last}"]').get_attribute("data-category")
    buy(page, category, range(5))
    page.search("number 3,")
    hits = page.ids("#shelf > .card")
    assert sorted(hits) == sorted(anybody)
    assert hits[0] == last
    assert page.text("#shelf > .card:first-child .hit-move") == "▲ 3"
    page.search("no such thing")
    assert "Nothing here is called" in page.text("#search-note")
    assert page.ids("#shelf > .card") == []


@pytest.mark.parametrize("scenario", ["Search", "Ads", "Intent"])
def test_a_scenario_that_the_model_lacks_says_so_in_the_service_s_words(
    page: Page, scenario: str
) -> None:
    (tab,) = [tab for tab in page.all("#scenarios .tab") if scenario in tab.text]
    tab.click()
    page.settled()
    notice = page.text("#scenario-notice")
    assert f"not trained for the scenario '{scenario.lower()}'" in notice
    assert "it has recommend" in notice
    page.complaints()  # a refusal is what this asks for
    page.click("#scenarios .tab")
    assert len(page.ids("#list > .row")) == 10
    assert not page.one("#scenario-notice").is_displayed()


def test_the_cart_is_bought_as_one(page: Page) -> None:
    anybody = page.ids("#list > .row")
    page.click('#chips [data-category="Drinks"]')
    for place in (1, 2, 3):
        page.click(f"#shelf .card:nth-child({place}) .cart")
    assert page.text("#cart-count") == "3"
    assert page.ids("#list > .row") == anybody  # this model learns from purchases alone
    page.click("#open-cart")
    page.click("#cart-items li:first-child button")
    page.click("#buy-cart")
    assert "Bought 2 items at once" in page.said()
    assert page.text("#cart-count") == "0"
    facts = [fact.text for fact in page.all("#facts dd")]
    assert facts[3] == "2"
    assert page.ids("#list > .row") != anybody


def test_the_keyboard_keeps_its_place_when_the_list_is_drawn_anew(page: Page) -> None:
    button = page.one("#list > .row:nth-child(3) .cart")
    page.driver.execute_script("arguments[0].focus()", button)
    item = page.ids("#list > .row")[2]
    button.send_keys(ENTER)
    page.settled()
    focused = page.driver.switch_to.active_element
    row = page.driver.execute_script("return arguments[0].closest('[data-id]').dataset.id", focused)
    assert (row, focused.text) == (item, "Add")
    focused.send_keys(TAB, ENTER)  # on to "Buy"
    page.settled()
    assert item not in page.ids("#list > .row")
    focused = page.driver.switch_to.active_element
    assert focused.text == "Buy"  # of the row that took its place


def test_a_household_is_replayed_event_by_event_against_what_it_bought_later(
    page: Page, artifact: Artifact, households: Households
) -> None:
    household = households.households[0]
    steps = len(household.events)
    assert page.text("#replay-progress").startswith(f"0 of {steps} events")
    step = page.one("#step")
    for at in range(steps):
        page.click("#step")
        assert page.text("#replay-progress").startswith(f"{at + 1} of {steps} events")
    shown = best_ten(artifact, household)
    hits = [item in household.later for item in shown]
    assert len(page.all("#replay-list li")) == 10
    assert ["hit" in row.get_attribute("class") for row in page.all("#replay-list li")] == hits
    values = [float(value.text) for value in page.all("#legend b")]
    expected = [
        ndcg_of_list(hits, len(household.later)),
        household.ndcg_at_10["item_knn"][-1],
        household.ndcg_at_10["popularity"][-1],
    ]
    assert values == pytest.approx(expected, abs=0.0051)
    assert values[0] > values[2]
    page.click("#restart")
    assert page.text("#replay-progress").startswith(f"0 of {steps} events")
    # a hurried visitor's events are sent one after the other all the same
    page.driver.execute_script(f"for (let n = 0; n < {steps}; n += 1) arguments[0].click()", step)
    page.settled()
    assert page.text("#replay-progress").startswith(f"{steps} of {steps} events")
    assert [float(value.text) for value in page.all("#legend b")] == values


def best_ten(artifact: Artifact, household: Household) -> list[str]:
    """What the evaluation would show a household after the events that are replayed."""
    ids = artifact.catalogue.item_ids
    bought = [event.item_id for event in household.events]
    items = np.array([artifact.catalogue.index_of[item] for item in bought])
    history = History(
        item=items,
        event_type=np.zeros_like(items),
        timestamp_ms=np.array([event.timestamp for event in household.events]),
        value=np.array([event.value for event in household.events], np.float32),
        visit=np.full(len(items), -1),
    )
    scorer = AdaptedScorer(artifact.algorithm, artifact.meta_params, view=artifact.view)
    order = np.argsort(-scorer.score([history])[0], kind="stable")
    return [ids[item] for item in order.tolist() if ids[item] not in bought][:10]


def test_without_households_the_page_says_how_to_get_them(driver: Any, serving: Serving) -> None:
    with serving() as address:
        page = Page(driver, address)
        page.open()
        assert "--playground DATA_DIR" in page.text("#replay-missing")
        assert not page.one("#replay-body").is_displayed()


def test_a_service_with_keys_asks_for_one_and_keeps_it_for_the_tab(
    driver: Any, serving: Serving
) -> None:
    hashed = [hashlib.sha256(key.encode()).hexdigest() for key in ("shopper", "owner")]
    keys = Keys(
        [
            KeyConfig(name="shopper", sha256=hashed[0], scopes=(Scope.READ, Scope.WRITE)),
            KeyConfig(name="owner", sha256=hashed[1], scopes=tuple(Scope)),
        ]
    )

    def answer(key: str) -> None:
        page.one("#key").send_keys(key)
        page.one("#key-form button").click()

    with serving(keys=keys) as address:
        page = Page(driver, address)
        driver.get(f"{address}/")
        page.until(lambda: page.one("#key-dialog").is_displayed())
        answer("guessed")
        page.until(lambda: "not known" in page.text("#key-note"))
        answer("shopper")
        page.settled()
        buy(page, "Apples", range(1))
        assert page.text("#list-state") == "adapted to you"
        assert driver.execute_script("return sessionStorage.length") == 1
        page.click("#forget")
        assert "'admin'" in page.said()
        assert page.text("#list-state") == "adapted to you"
        page.reload()  # no question: the key is kept
        assert page.text("#list-state") == "adapted to you"
        page.complaints()  # the refusals that this asked for


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_no_serious_violation_of_accessibility_and_nothing_wider_than_the_page(
    page: Page, request: pytest.FixtureRequest, width: int, dark: bool
) -> None:
    page.emulate(width=width, dark=dark)
    buy(page, "Cheese", range(1))
    page.search("number 2")
    page.click("#step")
    page.until(lambda: not page.driver.execute_script("return document.getAnimations().length"))
    serious, num_passed = page.checked_by_axe(axe_source(request.config.cache.mkdir("axe")))
    assert serious == []
    assert num_passed > 20
    wider = page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0  # less by a scroll bar
