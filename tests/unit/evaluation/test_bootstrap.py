"""Intervals cover what they should, and pairing counts."""

import numpy as np
import pytest

from raymeta.evaluation import bootstrap
from raymeta.evaluation.bootstrap import interval, resampled_means


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(size=(500, 1))
    low, high = interval(resampled_means(values, np.random.default_rng(1)))
    half = 1.96 * values.std() / np.sqrt(500)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_columns_are_resampled_together():
    values = np.random.default_rng(0).normal(size=(300, 1))
    means = resampled_means(np.hstack([values, values + 0.25]), np.random.default_rng(1))
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 0.25, atol=1e-12)


def test_the_seed_decides(monkeypatch):
    values = np.random.default_rng(0).normal(size=(20, 2))
    one = resampled_means(values, np.random.default_rng(3))
    # in pieces of five resamples
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_ONCE", 100)
    np.testing.assert_allclose(resampled_means(values, np.random.default_rng(3)), one)
    assert not np.allclose(resampled_means(values, np.random.default_rng(4)), one)
