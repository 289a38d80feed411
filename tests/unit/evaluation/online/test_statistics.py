"""Rates, differences and alarms against other implementations and published numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raymeta.evaluation.online.statistics import difference, rate, sample_ratio_p, sign_test_p


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_rate_is_wilsons(counts: tuple[int, int]) -> None:
    found = rate(*counts)
    expected = stats.binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_nothing_tried_says_nothing() -> None:
    nothing = rate(0, 0)
    assert (nothing.value, nothing.low, nothing.high) == (None, 0.0, 1.0)
    assert difference(nothing, rate(1, 2)).value is None
    assert not difference(nothing, rate(1, 2)).is_clear


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2)])
def test_more_successes_than_trials_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no share"):
        rate(*counts)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe 1998, table II, (a) and (c), method 10
    found = difference(rate(56, 70), rate(48, 80))
    assert (found.low, found.high) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )
    assert found.is_clear
    found = difference(rate(6, 7), rate(2, 7))
    assert (found.low, found.high) == (
        pytest.approx(0.0582, abs=1e-4),
        pytest.approx(0.8062, abs=1e-4),
    )


def test_a_split_as_asked_for_is_likely_and_another_is_not() -> None:
    assert sample_ratio_p({"a": 500, "b": 500}, {"a": 1, "b": 1}) == 1.0
    assert sample_ratio_p({"a": 900, "b": 100}, {"a": 9, "b": 1}) == 1.0
    assert sample_ratio_p({"a": 5_200, "b": 4_800}, {"a": 1, "b": 1}) < 0.001
    assert sample_ratio_p({"a": 300}, {"a": 1, "b": 1}) < 0.001  # nobody got b
    assert sample_ratio_p({"a": 300}, {"a": 1}) == 1.0
    assert sample_ratio_p({}, {"a": 1, "b": 1}) == 1.0


def test_the_sign_test_is_exact() -> None:
    assert sign_test_p(0, 0) == 1.0
    assert sign_test_p(5, 0) == pytest.approx(2 / 32)
    assert sign_test_p(3, 7) == sign_test_p(7, 3)
