"""Where events happen, as adapting sees it: the places of most training users, by index.

A place is a text of the log (a branch, a channel, a country's site). One that few training users
shop at says too little; its events count as those of an unknown place.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raymeta.data.task_dataset import UserTasks
from raymeta.errors import DataError

MIN_USERS = 3
"""Training users that a known place has at least."""

UNKNOWN = -1


def known_places(users: UserTasks, names: Sequence[str], *, max_places: int) -> tuple[str, ...]:
    """The places of most users, most first.

    Args:
        users: training users, `place` an index into `names`.
        max_places: how many are kept at most.

    Raises:
        DataError: no place has enough users.
    """
    place, user = users.events.place, users.user_of_event()
    told = place != UNKNOWN
    pairs = np.unique(user[told] * len(names) + place[told])
    num_users = np.bincount(pairs % len(names), minlength=len(names))
    most = np.argsort(-num_users, kind="stable")[:max_places]
    kept = tuple(str(names[row]) for row in most if num_users[row] >= MIN_USERS)
    if not kept:
        raise DataError(
            f"No place has {MIN_USERS} training users, of {len(names)} places in the log.",
            remedy="Set data.max_places: 0, or map another column to `place`.",
        )
    return kept


def localise_places(users: UserTasks, names: Sequence[str], known: Sequence[str]) -> UserTasks:
    """Rewrites `place`, an index into `names`, as one into `known`; -1 for the others."""
    index_of = {name: index for index, name in enumerate(known)}
    # one more at the end, where -1 points
    to_known: NDArray[np.int64] = np.array(
        [*(index_of.get(name, UNKNOWN) for name in names), UNKNOWN], np.int64
    )
    return replace(users, events=replace(users.events, place=to_known[users.events.place]))
