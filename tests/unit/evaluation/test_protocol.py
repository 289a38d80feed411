"""P1: what a user's support and query are, and that a scorer cannot recommend what is known."""

import numpy as np
import pytest

from raymeta.data.episodes import ALL_BUT_LAST
from raymeta.data.events import History
from raymeta.errors import DataError
from raymeta.evaluation import protocol
from raymeta.evaluation.metrics import METRICS
from raymeta.evaluation.protocol import cut_tasks, reference_lines, score_tasks

NUM_ITEMS = 8


def history(*visits):
    """A history of purchases (type 0); an item may be (item, type)."""
    events = [
        (item if isinstance(item, tuple) else (item, 0)) + (visit,)
        for visit, items in enumerate(visits)
        for item in items
    ]
    item, kind, visit = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return History(item, kind, visit * 1000, np.ones(len(item), np.float32), visit)


def cut_by_visits(histories, sizes, **options):
    return cut_tasks(histories, sizes, unit="visits", positive_types=(0,), **options)


class Table:
    """Scores given beforehand, the same for everyone."""

    def __init__(self, *scores):
        self._scores = np.array(scores, np.float32)

    def score(self, histories):
        return np.tile(self._scores, (len(histories), 1))


def test_the_query_is_what_is_new_later():
    (tasks,) = cut_by_visits([history([1, 2], [2, 3], [4, 1])], [1])
    assert tasks.queries[0].tolist() == [3, 4]
    assert tasks.supports[0].item.tolist() == [1, 2]


def test_repeat_keeps_what_is_bought_again_and_masks_nothing():
    (tasks,) = cut_by_visits([history([1, 2], [2, 3])], [1], repeat=True)
    assert tasks.queries[0].tolist() == [2, 3]
    assert not tasks.masked(NUM_ITEMS).any()


def test_views_are_not_what_is_to_be_found():
    (tasks,) = cut_by_visits([history([1], [(2, 1), 3])], [1])
    assert tasks.queries[0].tolist() == [3]


def test_users_with_nothing_left_do_not_count_at_that_size():
    small, large = history([1], [2]), history([1], [2], [3])
    one, two = cut_by_visits([small, large], [1, 2])
    assert one.user_rows.tolist() == [0, 1]
    assert two.user_rows.tolist() == [1]


def test_items_outside_the_catalogue_are_counted_and_not_ranked():
    (tasks,) = cut_by_visits([history([1, -1], [-1, 3, -1])], [1])
    assert tasks.queries[0].tolist() == [3]
    assert tasks.num_outside == 2


def test_a_size_at_which_nobody_counts_is_refused():
    with pytest.raises(DataError, match="after 5 visits"):
        cut_by_visits([history([1], [2])], [5])


def test_support_items_are_never_recommended():
    (tasks,) = cut_by_visits([history([0, 1], [2])], [1])
    # 0 and 1 have the highest scores by far; without the mask item 2 would be third
    scored = score_tasks(Table(9, 8, 3, 2, 1, 0, 0, 0), [tasks], num_items=NUM_ITEMS)
    assert scored.users["mrr"].tolist() == [1.0]


def test_repeat_ranks_support_items_too():
    (tasks,) = cut_by_visits([history([0, 1], [2])], [1], repeat=True)
    scored = score_tasks(Table(9, 8, 3, 2, 1, 0, 0, 0), [tasks], num_items=NUM_ITEMS)
    assert scored.users["mrr"].tolist() == [pytest.approx(1 / 3)]


def test_batches_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    histories = [
        history(*[rng.choice(NUM_ITEMS, 2, replace=False) for _ in range(5)]) for _ in range(30)
    ]
    tasks = cut_by_visits(histories, [0, 1])
    scorer = Table(*rng.normal(size=NUM_ITEMS))
    whole = score_tasks(scorer, tasks, num_items=NUM_ITEMS)
    monkeypatch.setattr(protocol, "SCORES_PER_BATCH", 1)
    assert len(protocol.batches(tasks[0], NUM_ITEMS)) > 1
    parts = score_tasks(scorer, tasks, num_items=NUM_ITEMS)
    assert whole.users.equals(parts.users)
    assert whole.coverage == parts.coverage


def test_an_oracle_reaches_the_ceiling_and_random_scores_reach_chance():
    rng = np.random.default_rng(1)
    num_items = 60
    histories = [
        history(*[rng.choice(num_items, 3, replace=False) for _ in range(8)]) for _ in range(400)
    ]
    tasks = cut_by_visits(histories, [2])
    wanted = {id(h): q for h, q in zip(tasks[0].supports, tasks[0].queries, strict=True)}

    class Oracle:
        def score(self, supports):
            scores = np.zeros((len(supports), num_items), np.float32)
            for row, support in enumerate(supports):
                scores[row, wanted[id(support)]] = 1.0
            return scores

    class Random:
        def score(self, supports):
            return rng.random((len(supports), num_items), np.float32)

    lines = reference_lines(tasks, num_items=num_items)
    oracle = score_tasks(Oracle(), tasks, num_items=num_items).users
    random = score_tasks(Random(), tasks, num_items=num_items).users
    for name in METRICS:
        np.testing.assert_allclose(oracle[name], lines["ceiling"].users[name], atol=1e-12)
        # the mean of 400 users is within four of its standard errors
        margin = 4 * random[name].std() / 20
        assert abs(random[name].mean() - lines["chance"].users[name].mean()) <= margin, name


@pytest.mark.parametrize("unit", ["visits", "items"])
def test_all_but_the_last_leaves_one_unit_to_find(unit):
    (tasks,) = cut_tasks(
        [history([0, 1], [2], [3])], [ALL_BUT_LAST], unit=unit, positive_types=(0,)
    )
    assert tasks.queries[0].tolist() == [3]
    assert tasks.supports[0].item.tolist() == [0, 1, 2]
