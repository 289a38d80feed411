"""Impressions and what came of them: the join, the cut, and the support that both give."""

import numpy as np
import pytest
import torch

from raymeta.data.episodes import cut_impressions
from raymeta.data.events import History, SupportView, support_from_events
from raymeta.data.impressions import FeedbackTypes, join_feedback

TYPES = FeedbackTypes(impression=1, click=0, conversion=2)
VIEW = SupportView(100, (0, 1, 2), feedback=TYPES)
SHOWN, CLICK, BUY = 1, 0, 2


def history(*events):
    """Of (item, type, time); the value of an impression is its slot, here 1 + item."""
    item, kind, time = (np.array(column, np.int64) for column in zip(*events, strict=True))
    value = np.where(kind == SHOWN, item + 1.0, np.nan).astype(np.float32)
    return History(item, kind, time, value, np.zeros_like(item))


def joined(events):
    item, kind, time = (np.array(column, np.int64) for column in zip(*events, strict=True))
    user = np.zeros_like(item)
    return join_feedback(user=user, item=item, event_type=kind, timestamp_ms=time, types=TYPES)


def test_feedback_belongs_to_the_latest_impression_of_its_item_before_it():
    events = [(5, SHOWN, 10), (5, SHOWN, 20), (5, CLICK, 25), (6, SHOWN, 22), (5, BUY, 30)]
    found = joined(events)
    assert found.click.tolist() == [False, True, False]
    assert found.conversion.tolist() == [False, True, False]
    assert found.shown.tolist() == [0, 1, 1, 3, 1]


def test_a_click_at_the_time_of_its_impression_is_its_own_and_one_before_it_nobodys():
    found = joined([(5, CLICK, 10), (5, SHOWN, 10), (6, CLICK, 9), (6, SHOWN, 10)])
    assert found.click.tolist() == [True, False]
    assert found.shown.tolist() == [1, 1, -1, 3]


def test_a_conversion_needs_a_click_and_users_are_kept_apart():
    assert not joined([(5, SHOWN, 10), (5, BUY, 11)]).conversion.any()
    apart = join_feedback(
        user=np.array([0, 1]),
        item=np.array([5, 5]),
        event_type=np.array([SHOWN, CLICK]),
        timestamp_ms=np.array([1, 2]),
        types=TYPES,
    )
    assert apart.click.tolist() == [False]


def test_the_order_of_arrival_changes_no_row_of_a_support():
    events = [(5, SHOWN, 10), (6, SHOWN, 20), (5, CLICK, 15), (5, BUY, 16), (7, SHOWN, 20)]
    one = support_from_events([history(*events)], VIEW)
    other = support_from_events([history(*events[::-1])], VIEW)
    assert all(torch.equal(one[name], other[name]) for name in one)
    mask = one["mask"][0]
    assert one["item"][0][mask].tolist() == [5, 6, 7]
    assert one["click"][0][mask].tolist() == [1, 0, 0]
    assert one["conversion"][0][mask].tolist() == [1, 0, 0]
    assert one["value"][0][mask].tolist() == [6, 7, 8]


def test_the_cut_keeps_feedback_that_was_known_when_the_next_one_was_shown():
    events = [(5, SHOWN, 10), (5, CLICK, 11), (6, SHOWN, 12), (7, SHOWN, 20), (6, CLICK, 21)]
    support, query = cut_impressions(history(*events), 2, types=TYPES)
    assert sorted(zip(support.item.tolist(), support.event_type.tolist(), strict=True)) == [
        (5, CLICK),
        (5, SHOWN),
        (6, SHOWN),  # its click came after the third impression
    ]
    assert query.item.tolist() == [7]
    whole, nothing = cut_impressions(history(*events), 3, types=TYPES)
    assert len(nothing) == 0
    assert len(whole) == len(events)


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_support_and_query_share_no_impression(size):
    generator = np.random.default_rng(0)
    times = np.sort(generator.integers(0, 40, 30))
    events = [(int(generator.integers(4)), int(generator.integers(3)), int(t)) for t in times]
    past = history(*events)
    support, query = cut_impressions(past, size, types=TYPES)
    assert (support.event_type == SHOWN).sum() == size
    assert len(query) == (past.event_type == SHOWN).sum() - size
    rows = support_from_events([support], VIEW)
    assert int(rows["mask"].sum()) == size
