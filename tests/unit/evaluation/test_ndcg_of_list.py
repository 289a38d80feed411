"""nDCG of a list as shown agrees with the batched metric and its closed form."""

import math

import pytest
import torch

from raymeta.evaluation.metrics import ndcg_of_list, user_metrics


def test_it_agrees_with_the_metric_of_the_whole_ranking() -> None:
    hits = [False, True, True, False, False, True, False, False, False, False]
    relevant = torch.tensor([[*hits, True, True]])
    scores = torch.arange(12, 0, -1, dtype=torch.float32)[None]
    values, _ = user_metrics(scores, relevant)
    assert ndcg_of_list(hits, 5) == pytest.approx(float(values["ndcg_at_10"][0]), rel=1e-12)


def test_closed_forms() -> None:
    assert ndcg_of_list([True, False], 1) == 1.0
    assert ndcg_of_list([False, True], 1) == pytest.approx(1 / math.log2(3))
    assert ndcg_of_list([False] * 10, 0) == 0.0
