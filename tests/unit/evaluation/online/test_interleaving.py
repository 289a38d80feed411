"""Team-draft lists: fair, whole, and decided by clicks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymeta.evaluation.online.interleaving import Preference, team_draft

RANKING = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(RANKING, RANKING, st.integers(0, 12), st.integers(0, 100))
def test_each_item_once_and_each_pick_the_best_that_is_left(
    first: list[str], second: list[str], length: int, seed: int
) -> None:
    drafted = team_draft(first, second, length=length, generator=np.random.default_rng(seed))
    assert len(drafted.items) == len(set(drafted.items)) == len(drafted.from_first)
    assert len(drafted.items) == min(length, len(set(first) | set(second)))
    for place, (item, picked) in enumerate(zip(drafted.items, drafted.from_first, strict=True)):
        ranking = first if picked else second
        left = [other for other in ranking if other not in drafted.items[:place]]
        assert item == left[0]


def test_picks_come_in_pairs_with_a_coin_for_each() -> None:
    first, second = [f"a{n}" for n in range(40)], [f"b{n}" for n in range(40)]
    drafted = team_draft(first, second, length=40, generator=np.random.default_rng(1))
    pairs = [tuple(drafted.from_first[n : n + 2]) for n in range(0, 40, 2)]
    assert set(pairs) == {(True, False), (False, True)}


def test_equal_rankings_win_as_often() -> None:
    generator = np.random.default_rng(2)
    picks = [
        team_draft("abc", "abc", length=1, generator=generator).from_first[0] for _ in range(4000)
    ]
    assert np.mean(picks) == pytest.approx(0.5, abs=0.03)


def test_a_user_decides_once_by_all_its_clicks() -> None:
    found = Preference().with_user(3, 1).with_user(0, 2).with_user(1, 1).with_user(5, 0)
    assert found == Preference(first=2, second=1, ties=1)
    assert found.lead == pytest.approx(2 / 3 - 0.5)
    assert Preference().lead == 0.0
    assert Preference(first=10).p == pytest.approx(2 / 1024)
