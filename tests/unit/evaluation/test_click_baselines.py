"""Baselines of clicks: what the support says, by hand."""

import numpy as np
import pytest

from raymeta.data.task_split import TaskSplit, load_task_split
from raymeta.evaluation.baselines.clicks import GRIDS, NUM_GROUPS, ClickColumns, tuned_baselines
from raymeta.evaluation.labelled import cut_users
from tests.helpers.feeds import FEED, write_feed


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> TaskSplit:
    return load_task_split(write_feed(tmp_path_factory.mktemp("feed")), FEED.data)


def test_the_own_rate_is_that_of_the_support_smoothed_to_the_base(split: TaskSplit) -> None:
    methods, facts = tuned_baselines(split, [0, 6], ("own_rate",), note=lambda _: None)
    smoothing = facts["own_rate"]["setting"]
    assert smoothing in GRIDS["own_rate"]
    base = ClickColumns(split).base
    nothing, six = cut_users(split.test, [0, 6], split.view)
    assert methods["own_rate"](nothing) == pytest.approx(np.tile(base, (len(nothing.rows()), 1)))
    types = split.view.feedback
    assert types is not None
    clicks = [int((h.event_type == types.click).sum()) for h in six.supports]
    expected = (np.array(clicks) + smoothing * base[0]) / (6 + smoothing)
    lengths = [len(query) for query in six.queries]
    assert methods["own_rate"](six)[:, 0] == pytest.approx(np.repeat(expected, lengths))


def test_the_support_is_read_from_the_user_and_not_from_the_padding(split: TaskSplit) -> None:
    columns = ClickColumns(split)
    cuts = cut_users(split.test, [3, 6], split.view)
    found = columns.of(cuts, counted=False).counts[:, 3]
    lengths = [len(query) for cut in cuts for query in cut.queries]
    assert found.tolist() == np.repeat([3] * len(cuts[0]) + [6] * len(cuts[1]), lengths).tolist()


def test_a_training_rows_item_rate_does_not_tell_its_label(split: TaskSplit) -> None:
    columns = ClickColumns(split)
    (cut,) = cut_users(split.train, [3], split.view)
    made = columns.of([cut], counted=True)
    item = np.concatenate([query.item for query in cut.queries])
    group = np.repeat(cut.user_rows % NUM_GROUPS, [len(query) for query in cut.queries])
    alike = 0
    for one in np.unique(np.stack([group, item], 1), axis=0):
        rows = (np.stack([group, item], 1) == one).all(1)
        assert len(np.unique(made.counts[rows, :3], axis=0)) == 1
        alike += len(np.unique(made.labels[rows, 0])) == 2
    assert alike > 20  # groups of rows with both labels
    test = columns.of(cut_users(split.test, [3], split.view), counted=False).counts
    assert test[:, 0].max() > made.counts[:, 0].max()
