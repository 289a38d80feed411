"""What the demo tells of a household: whom it chooses, and against what it counts."""

from pathlib import Path

import numpy as np
import pytest

from raymeta.artifact import load_artifact
from raymeta.cli.story import STORY_VISITS, has_full_baskets, typical_household
from raymeta.data.events import History
from raymeta.evaluation.fixed_target import FixedTarget, measure_fixed_target
from tests.helpers.artifacts import tiny_artifact


def history(*baskets: list[int]) -> History:
    item = np.concatenate([np.array(b, np.int64) for b in baskets])
    visit = np.repeat(np.arange(len(baskets)), [len(b) for b in baskets])
    zeros = np.zeros(len(item), np.int64)
    return History(item, zeros, zeros, zeros.astype(np.float32), visit)


FULL = history([0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14])
SMALL = history([0], [1], [2])


def test_the_household_is_typical_of_those_that_gain() -> None:
    gained = [[0.3, 0.4, 0.4, 0.6], [0.3, 0.4, 0.4, 0.5], [0.3, 0.4, 0.4, 0.4]]
    lost = [[0.3, 0.4, 0.4, 0.3], [0.9, 0.4, 0.4, 0.5]]
    households = FixedTarget(np.array([2, 3, 5, 7, 8]), np.array([*gained, *lost]))
    assert typical_household(households, [FULL] * 9) == 3
    assert typical_household(households, [SMALL] * 9) == 3
    # the most typical one's visits tell little
    assert typical_household(households, [FULL, FULL, FULL, SMALL, *[FULL] * 5]) in {2, 5}
    assert households.facts() == {
        "count": 5,
        "mean_ndcg_at_10": pytest.approx([0.42, 0.4, 0.4, 0.46]),
        "better": 0.6,
        "worse": 0.2,
    }


def test_where_none_gains_there_is_still_a_story() -> None:
    households = FixedTarget(np.array([0, 1]), np.array([[0.3] * 4, [0.5, 0.4, 0.4, 0.4]]))
    assert typical_household(households, [FULL, SMALL]) == 0


def test_what_is_to_be_found_is_the_same_after_every_visit(tmp_path: Path) -> None:
    """Two households of the same group: the group's items not had by the end are the target."""
    artifact = load_artifact(tiny_artifact(tmp_path / "artifact"))
    num_items = len(artifact.catalogue)
    wanted = [i for i in range(num_items) if i >= 3]
    households = [history([0], [1], [2], wanted), history([0], [1], [2])]
    measured = measure_fixed_target(
        artifact.algorithm,
        artifact.meta_params,
        households,
        STORY_VISITS,
        view=artifact.view,
        num_items=num_items,
        positive_types=[0],
    )
    assert measured.rows.tolist() == [0]  # the other has nothing left to find
    np.testing.assert_allclose(measured.ndcg, 1.0)  # all that is ranked is wanted


def test_a_visit_of_what_is_known_already_tells_nothing() -> None:
    first, second, third = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]
    assert has_full_baskets(history(first, second, third))
    assert not has_full_baskets(history(first, second, [0, 1, 2, 3, 10]))
    assert not has_full_baskets(history(first, second, [10, 11, 12, 13, -1]))
    assert not has_full_baskets(history(first, second))
