"""From per-user scores to a report: pooling, differences, harm, and a folder that is whole."""

import json

import numpy as np
import pandas as pd
import pytest

from raymeta.errors import DataError
from raymeta.evaluation import report
from raymeta.evaluation.fold import FoldScores
from raymeta.evaluation.metrics import METRICS
from raymeta.evaluation.plots import spread_apart
from raymeta.evaluation.report import to_markdown, write_report
from raymeta.evaluation.summary import best_baseline, pool, summarise

PROTOCOL = {
    "name": "shop",
    "unit": "visits",
    "repeat": False,
    "positive_events": ["purchase"],
    "split": "Every user is a test user once, over 2 folds",
}
RUN = {
    "command": "raymeta evaluate shop.yaml --folds 2",
    "wall_s": 3.0,
    "peak_memory_mb": 512.0,
    "versions": {"python": "3.11"},
}


def scores(method, values, *, users, size=1, facts=None):
    """One method's scores of some users; every metric has the same value."""
    table = pd.DataFrame({"method": method, "size": size, "user_id": users})
    table["num_known"], table["num_later"] = 3 * size, np.arange(len(users)) + 1
    for name in METRICS:
        table[name] = values
    return FoldScores(table, {method: {size: 0.25}}, facts or {})


def two_folds():
    first, second = ["a", "b"], ["c", "d"]
    return [
        scores("adapted", [0.5, 0.7], users=first),
        scores("unadapted", [0.4, 0.8], users=first),
        scores("popularity", [0.3, 0.5], users=first),
        scores("adapted", [0.2, 0.6], users=second),
        scores("unadapted", [0.1, 0.6], users=second),
        scores("popularity", [0.0, 0.4], users=second),
    ]


def full(result):
    return {**result, "protocol": PROTOCOL, "run": RUN}


def test_users_of_all_folds_are_pooled_and_compared_in_pairs():
    result = summarise(two_folds())
    assert result["num_users"] == {"1": 4}
    assert result["methods"]["adapted"]["1"]["ndcg_at_10"]["mean"] == pytest.approx(0.5)
    # 0.2 for each of the four, so that no resample differs
    difference = result["differences"]["popularity"]["1"]["ndcg_at_10"]
    assert difference == pytest.approx({"mean": 0.2, "low": 0.2, "high": 0.2})
    assert result["methods"]["adapted"]["1"]["coverage_at_10"] == 0.25


def test_harm_is_the_share_of_users_made_worse():
    # b alone is worse than unadapted; d is the same
    assert summarise(two_folds())["harm_rate"] == {"1": 0.25}


def test_seeds_are_averaged_for_each_user():
    twice = [
        scores("adapted", [0.2, 0.4], users=["a", "b"]),
        scores("adapted", [0.4, 0.8], users=["a", "b"]),
    ]
    assert pool(twice)["ndcg_at_10"].tolist() == pytest.approx([0.3, 0.6])
    assert summarise(twice)["num_users"] == {"1": 2}


def test_methods_must_score_the_same_users():
    uneven = [
        scores("adapted", [0.2], users=["a"]),
        scores("popularity", [0.2, 0.1], users=["a", "b"]),
    ]
    with pytest.raises(AssertionError, match="same users"):
        summarise(uneven)


def test_the_best_baseline_is_one_of_the_baselines():
    assert best_baseline(summarise(two_folds()), 1) == "popularity"


def test_a_report_is_written_whole_and_replaced(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "cells").mkdir()
    for _ in range(2):
        write_report(full(summarise(two_folds())), two_folds(), folder)
    names = {path.name for path in folder.iterdir()}
    pages = {"report.html", "report.md", "curve.png", "gains.png"}
    assert names == {"cells", "results.json", "per_user.parquet", *pages}
    stored = json.loads((folder / "results.json").read_text())
    assert stored["methods"]["adapted"]["1"]["mrr"]["mean"] == pytest.approx(0.5)
    assert len(pd.read_parquet(folder / "per_user.parquet")) == 12


def test_a_failure_leaves_the_earlier_report(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report(full(summarise(two_folds())), two_folds(), folder)
    before = (folder / "report.md").read_text()

    def fail(*_args, **_options):
        raise OSError("no space left on device")

    monkeypatch.setattr(report, "draw_curve", fail)
    other = [scores("adapted", [0.9, 0.9], users=["a", "b"])]
    with pytest.raises(OSError, match="no space"):
        write_report(full(summarise(other)), other, folder)
    assert (folder / "report.md").read_text() == before
    assert (folder / "results.json").is_file()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="other than a report"):
        write_report(full(summarise(two_folds())), two_folds(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_page_has_the_tables_the_command_and_what_was_left_out():
    facts = {
        "num_items": 1200,
        "num_outside": {"1": 34},
        "tuned": {
            "mixture": {
                "settings": {"item_knn": {"shrink": 10, "exponent": 0.5}, "weights": {"1": [2.0]}},
                "num_configurations": 16,
                "validation_ndcg_at_10": 0.4321,
            }
        },
        "left_out": {"ease": "too many items"},
    }
    folds = [*two_folds(), scores("chance", [0.1] * 4, users=list("abcd"), facts=facts)]
    page = to_markdown(full(summarise(folds)))
    assert "| **adapted** | 0.500 ±" in page
    assert "| less popularity | **+0.200 ±0.000** |" in page
    assert "less chance" not in page
    assert "| harm rate | 25.0% |" in page
    assert "| item-kNN with shrink 10, exponent 0.5 |" in page
    assert "EASE was left out: too many items" in page
    assert "34 at 1" in page
    assert "raymeta evaluate shop.yaml --folds 2" in page


def test_fold_scores_survive_a_folder(tmp_path):
    written = scores("adapted", [0.5, 0.25], users=["a", "b"], facts={"num_items": 3})
    written.write(tmp_path)
    read = FoldScores.read(tmp_path)
    pd.testing.assert_frame_equal(read.table, written.table, check_dtype=False)
    assert (read.coverage, read.facts) == (written.coverage, written.facts)


def test_labels_are_moved_apart_and_keep_their_order():
    heights = np.array([0.50, 0.10, 0.51, 0.505, 0.9])
    moved = spread_apart(heights, gap=0.1)
    assert np.argsort(moved).tolist() == np.argsort(heights).tolist()
    assert (np.diff(np.sort(moved)) >= 0.1 - 1e-12).all()
    # those that had room stay where they were
    assert moved[[1, 4]].tolist() == pytest.approx([0.1, 0.9])
