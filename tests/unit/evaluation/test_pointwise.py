"""Probabilities judged: each metric by hand or against scikit-learn, and intervals over users."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from raymeta.evaluation.fold import FoldScores
from raymeta.evaluation.pointwise import auc, calibration, summarise, user_sums
from raymeta.evaluation.scenarios.ads import JUDGED


@pytest.fixture
def rows():
    generator = np.random.default_rng(1)
    user = np.repeat(np.arange(60), 20)
    p = generator.uniform(0.05, 0.95, len(user)).round(2)  # with ties
    return (generator.uniform(size=len(user)) < p).astype(float), p, user


def whole(sums, of):
    dense = sums.toarray() if hasattr(sums, "toarray") else sums
    return float(of(dense.sum(0, keepdims=True))[0])


def test_sums_over_users_give_the_metrics_of_scikit_learn(rows):
    label, p, user = rows
    found = {name: whole(*sums) for name, sums in user_sums(label, p, user, 60).items()}
    assert found["log_loss"] == pytest.approx(log_loss(label, p))
    assert found["auc"] == pytest.approx(roc_auc_score(label, p), abs=2e-4)
    assert auc(label, p) == pytest.approx(roc_auc_score(label, p))
    own = [roc_auc_score(label[user == u], p[user == u]) for u in range(60)]
    assert found["gauc"] == pytest.approx(np.mean(own))
    assert found["ece"] < 0.06


def test_gauc_leaves_out_users_with_one_label_and_weighs_by_impressions():
    label = np.array([1, 0, 1, 0, 0, 1, 1.0])
    p = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    user = np.array([0, 0, 1, 1, 1, 2, 2])
    assert whole(*user_sums(label, p, user, 3)["gauc"]) == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)


def test_ece_is_the_gap_of_a_constant():
    label = np.array([1.0, 0, 0, 0] * 10)
    sums = user_sums(label, np.full(40, 0.5), np.arange(40) // 4, 10)
    assert whole(*sums["ece"]) == pytest.approx(0.25)
    assert np.isnan(auc(np.ones(3), np.ones(3)))


def frame(method, p, label, user):
    return pd.DataFrame(
        {
            "method": method, "size": 5, "user_id": [f"u{n:02}" for n in user],
            "click": label, "conversion": label, "p_click": p, "p_conversion": p,
        }
    )  # fmt: skip


def test_paired_differences_are_narrower_than_means_and_of_the_right_sign(rows):
    label, p, user = rows
    worse = 0.5 + 0.2 * (p - 0.5)
    table = pd.concat([frame("adapted", p, label, user), frame("unadapted", worse, label, user)])
    result = summarise([FoldScores(table, {}, {})], judged=JUDGED)
    mean = result["methods"]["adapted"]["5"]["click_log_loss"]
    difference = result["differences"]["unadapted"]["5"]["click_log_loss"]
    assert difference["high"] < 0
    assert mean["low"] < mean["mean"] < mean["high"]
    same = result["differences"]["unadapted"]["5"]["click_auc"]
    assert same["mean"] == same["low"] == same["high"] == 0  # one order, so one AUC
    assert result["num_users"] == {"5": 60}
    points = calibration(frame("adapted", p, label, user), "click")
    assert [q["predicted"] for q in points] == sorted(q["predicted"] for q in points)
