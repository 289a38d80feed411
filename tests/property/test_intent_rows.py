"""Rows of moments against a count by hand, and that nothing of the future is in a support."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raymeta.data.events import History, SupportView, support_from_events
from raymeta.data.intent import (
    KNOWN,
    MS_PER_DAY,
    Baskets,
    IntentRows,
    Moments,
    bought_within,
    known_at,
    moments_of,
)
from raymeta.data.moments import cut_moments

DAY = int(MS_PER_DAY)
ROWS = IntentRows(3.0, 4, "category", ("a", "b"), np.array([0, 0, 1, -1]))
VIEW = SupportView(64, (0,), intent=ROWS)

purchases = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=25)


def history_of(bought: list[tuple[int, int]]) -> History:
    day, item = np.array(sorted(set(bought)), np.int64).reshape(-1, 2).T
    return History(
        item=item,
        event_type=np.zeros(len(item), np.int64),
        timestamp_ms=day * DAY,
        value=np.full(len(item), np.nan, np.float32),
        visit=np.unique(day, return_inverse=True)[1].astype(np.int64),
    )


def baskets_of_all(histories: list[History]) -> Baskets:
    user = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    item, time_ms = (
        np.concatenate([getattr(h, n) for h in histories]) for n in ("item", "timestamp_ms")
    )
    return Baskets.of(user, item, time_ms, num_users=len(histories), rows=ROWS)


@given(st.lists(purchases, min_size=1, max_size=3))
def test_counts_and_labels_are_those_of_a_count_by_hand(users):
    histories = [history_of(bought) for bought in users]
    baskets = baskets_of_all(histories)
    until = np.full(len(users), 15 * DAY)
    moments = moments_of(baskets, until_ms=until, horizon_ms=ROWS.horizon_ms)
    known = known_at(baskets, moments)
    labels = bought_within(baskets, moments, horizon_ms=ROWS.horizon_ms)
    expected = []
    for user, history in enumerate(histories):
        days = sorted(set((history.timestamp_ms // DAY).tolist()))
        for place, day in enumerate(days):
            after = [*days[place + 1 :], 99]
            expected += [
                (user, day + 3 * silent)
                for silent in range(4)
                if day + 3 * silent < after[0] and day + 3 * silent + 3 <= 15
            ]
    found = zip(moments.user.tolist(), (moments.time_ms // DAY).tolist(), strict=True)
    assert list(found) == expected
    for row, (user, now) in enumerate(expected):
        history = histories[user]
        day, category = history.timestamp_ms // DAY, ROWS.category_of_item[history.item]
        before = np.unique(day[day <= now])
        assert known["num_baskets"][row] == len(before)
        assert known["num_days"][row] == now - before[0]
        assert known["silent_days"][row] == now - before[-1]
        for place in range(2):
            own = np.unique(day[category == place])
            assert known["bought"][row, place] == (own <= now).sum()
            since = now - own[own <= now][-1] if (own <= now).any() else 0
            assert known["since_days"][row, place] == since
            assert labels[row, place] == ((own > now) & (own <= now + 3)).any()


@given(purchases, st.integers(0, 6))
def test_a_support_is_decided_by_what_came_before_the_cut(bought, size):
    history = history_of(bought)
    (support, asked), = cut_moments(history, [size], view=VIEW, end_ms=20 * DAY)  # fmt: skip
    rows = support_from_events([support], VIEW)
    last_ms = support.timestamp_ms.max(initial=0)
    assert (rows["last_ms"] == last_ms).all()
    # the labels that the support holds are the true ones, whatever came later
    baskets = baskets_of_all([history])
    moments = moments_of(baskets, until_ms=np.array([last_ms]), horizon_ms=ROWS.horizon_ms)
    truth = bought_within(baskets, moments, horizon_ms=ROWS.horizon_ms)[-ROWS.max_moments :]
    assert (moments.time_ms + ROWS.horizon_ms <= last_ms).all()
    mask = rows["mask"][0].numpy()
    if len(support) and (ROWS.category_of_item[support.item] >= -1).all():
        np.testing.assert_array_equal(rows["label"][0].numpy()[mask], truth)
    # what is asked comes after the cut, before the next basket, and within the log
    later = history.timestamp_ms[history.visit >= size]
    assert (asked.now_ms >= last_ms).all() or size == 0
    assert (asked.now_ms < later.min(initial=99 * DAY)).all()
    assert (asked.now_ms + ROWS.horizon_ms <= 20 * DAY).all()


@given(purchases, purchases, st.integers(0, 4))
def test_other_users_and_what_comes_later_change_nothing(bought, others, size):
    history = history_of(bought)
    support = history.where(history.visit < size)
    changed = History.empty() if not bought else history
    (same, _), = cut_moments(changed, [size], view=VIEW, end_ms=20 * DAY)  # fmt: skip
    alone = support_from_events([support], VIEW)
    together = support_from_events([history_of(others), same], VIEW)
    for name, value in alone.items():
        found = together[name][1]
        if name in (*KNOWN, "label", "mask"):
            found = found[: value.shape[1]]
        assert (found == value[0]).all(), name


def test_before_the_first_basket_nothing_is_known():
    history = history_of([(5, 0), (6, 2)])
    (support, asked), = cut_moments(history, [0], view=VIEW, end_ms=20 * DAY)  # fmt: skip
    assert len(support) == 0
    assert asked.now_ms.tolist() == [5 * DAY - 1]
    assert asked.label.tolist() == [[1.0, 1.0]]
    known = known_at(
        baskets_of_all([history]), Moments(np.array([0]), np.array([-1]), asked.now_ms)
    )
    assert all((value == 0).all() for value in known.values())
