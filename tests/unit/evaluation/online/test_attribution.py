"""What follows from a list, on histories whose counts can be read off."""

import pytest

from raymeta.evaluation.online.attribution import Act, Origin, Outcome, Tally, Windows
from raymeta.evaluation.online.interleaving import Preference

WINDOWS = Windows(click_ms=100, conversion_ms=1000)
NOW = 10_000


def origin(list_id: str) -> Origin | None:
    """`a1` is a list of variant a; `ab1` one of both, picked by turns; `x` is none of ours."""
    if list_id.startswith("ab"):
        return Origin(("a", "b"), (True, False, True, False))
    return Origin((list_id[0],)) if list_id[0] in "ab" else None


def shown(item: str, at: int = 0, list_id: str = "a1", position: int | None = None) -> Act:
    return Act(item, "impression", at, list_id, position)


def outcome(*acts: Act, now: int = NOW) -> Outcome:
    tally = Tally(origin, WINDOWS, now)
    tally.add(acts)
    return tally.outcomes.get("a", Outcome())


@pytest.mark.parametrize("at", [0, 100])
def test_an_act_within_the_window_that_names_the_list_is_a_click(at: int) -> None:
    found = outcome(shown("i"), shown("j"), Act("i", "view", at, "a1"), Act("i", "cart", at, "a1"))
    assert (found.impressions, found.clicks, found.users_clicked, found.users) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    "act",
    [
        Act("i", "view", 101, "a1"),
        Act("i", "view", -1, "a1"),
        Act("i", "view", 10, None),
        Act("i", "view", 10, "a2"),
        Act("k", "view", 10, "a1"),
        Act("i", "purchase", 10, "a1"),
    ],
)
def test_what_is_no_click(act: Act) -> None:
    assert outcome(shown("i"), act).clicks == 0


def test_a_purchase_follows_from_the_list_that_it_names_or_from_the_last_that_showed_it() -> None:
    lists = (shown("i", 0, "a1"), shown("i", 500, "b1"))
    tally = Tally(origin, WINDOWS, NOW)
    tally.add([*lists, Act("i", "purchase", 900)])
    assert {name: found.conversions for name, found in tally.outcomes.items()} == {"a": 0, "b": 1}
    tally = Tally(origin, WINDOWS, NOW)
    tally.add([*lists, Act("i", "purchase", 900, "a1"), Act("i", "purchase", 950, "a1")])
    assert {name: found.conversions for name, found in tally.outcomes.items()} == {"a": 1, "b": 0}
    assert outcome(shown("i"), Act("i", "purchase", 1001)).conversions == 0
    assert outcome(shown("i", 5), Act("i", "purchase", 4)).conversions == 0


def test_order_of_arrival_does_not_matter_and_the_first_impression_counts() -> None:
    acts = [Act("i", "view", 90, "a1"), shown("i", 50), shown("i", 0)]
    assert outcome(*acts) == outcome(*reversed(acts))
    assert outcome(*acts).impressions == 1
    # within the window of the second impression alone
    assert outcome(shown("i", 0), shown("i", 50), Act("i", "view", 120, "a1")).clicks == 0


def test_while_a_window_is_open_nothing_is_counted() -> None:
    acts = (shown("i"), Act("i", "view", 1, "a1"))
    assert outcome(*acts, now=999) == Outcome(open=1)
    assert outcome(*acts, now=1000).clicks == 1


def test_users_are_counted_once_and_lists_of_others_not_at_all() -> None:
    tally = Tally(origin, WINDOWS, NOW)
    tally.add(
        [shown("i"), shown("i", list_id="a2"), Act("i", "view", 1, "a1"), Act("i", "view", 1, "a2")]
    )
    tally.add([shown("i", list_id="x1"), Act("i", "view", 1, "x1")])
    assert tally.outcomes == {
        "a": Outcome(users=1, users_clicked=1, impressions=2, clicks=2),
    }


def test_clicks_on_an_interleaved_list_are_credits() -> None:
    tally = Tally(origin, WINDOWS, NOW)
    places = [shown(f"i{n}", list_id="ab1", position=n) for n in range(4)]
    tally.add([*places, Act("i1", "view", 1, "ab1"), Act("i3", "view", 1, "ab1")])
    tally.add([*places, Act("i0", "view", 1, "ab1"), Act("i1", "view", 1, "ab1")])
    tally.add([*places, Act("i2", "view", 1, "ab1")])
    assert tally.preferences == {("a", "b"): Preference(first=1, second=1, ties=1)}
    assert tally.outcomes == {}
