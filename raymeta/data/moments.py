"""Cuts a user's purchases in two: what is known, and the moments after it that are to be judged."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import History, SupportView
from raymeta.data.intent import (
    Asked,
    Baskets,
    IntentRows,
    arrivals_of,
    bought_within,
    moments_of,
)


def intent_rows(view: SupportView) -> IntentRows:
    """How the view makes rows of moments."""
    assert view.intent is not None, "data.intent says how rows are made"
    return view.intent


def baskets_of(histories: Sequence[History], view: SupportView) -> Baskets:
    """All baskets of some users, whatever adapting retains of them."""
    kept = [h.where((h.item >= 0) & np.isin(h.event_type, view.event_types)) for h in histories]
    user = np.repeat(np.arange(len(kept)), [len(history) for history in kept])
    item, time_ms = (
        np.concatenate([getattr(history, name) for history in kept])
        for name in ("item", "timestamp_ms")
    )
    return Baskets.of(user, item, time_ms, num_users=len(kept), rows=intent_rows(view))


def cut_moments(
    history: History, sizes: Sequence[int], *, view: SupportView, end_ms: int
) -> list[tuple[History, Asked]]:
    """Splits a history after its first visits, once for each size.

    Returns:
        For each size the support events, and the moments from then until the next basket: nothing
        is known at them but the support, and that the user has stayed away. With size 0 the one
        moment is just before the first basket. Moments whose horizon reaches past `end_ms`, the
        end of the log, are left out: what comes of them is not known.
    """
    rows = intent_rows(view)
    baskets = baskets_of([history], view)
    if not len(baskets.user):
        none = Asked(np.empty(0, np.int64), np.empty((0, len(rows.categories)), np.float32))
        return [(history.where(history.visit < size), none) for size in sizes]
    before = arrivals_of(baskets)
    later = moments_of(baskets, until_ms=np.array([end_ms]), horizon_ms=rows.horizon_ms)
    found = []
    for size in sizes:
        support = history.where(history.visit < size)
        counted = (support.item >= 0) & np.isin(support.event_type, view.event_types)
        last_ms = support.timestamp_ms[counted].max(initial=before.time_ms[0])
        last = int(np.searchsorted(baskets.time_ms, last_ms, side="right")) - 1
        moments = later.where(later.basket == last) if last >= 0 else before
        moments = moments.where(moments.time_ms + rows.horizon_ms <= end_ms)
        label = bought_within(baskets, moments, horizon_ms=rows.horizon_ms)
        found.append((support, Asked(moments.time_ms, label)))
    return found


def category_rates(users: Sequence[History], view: SupportView) -> list[NDArray[np.float64]]:
    """Of each category `[C]`: the share of baskets with it; the share of moments after a basket,
    and of those before users' first baskets, after which it is bought within the horizon."""
    rows, baskets = intent_rows(view), baskets_of(users, view)
    end_ms = np.full(len(users), baskets.time_ms.max())
    moments = moments_of(baskets, until_ms=end_ms, horizon_ms=rows.horizon_ms)
    labels = [
        bought_within(baskets, asked, horizon_ms=rows.horizon_ms)
        for asked in (moments, arrivals_of(baskets))
    ]
    return [found.mean(0, dtype=np.float64) for found in (baskets.has, *labels)]
