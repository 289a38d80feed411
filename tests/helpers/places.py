"""Shoppers of three branches, two of which sell things of their own."""

import numpy as np

from raymeta.data.events import History
from raymeta.data.interactions import InteractionMatrix

PLACES, ITEMS, EVENTS = 3, 24, 8


def shoppers(number: int, *, seed: int, told: bool = True) -> list[History]:
    """Each shops at one branch: half of what it buys is of the branch's own third of the items,
    the rest of anything. One event in ten has no place; without `told` places are drawn anew."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        branch = rng.integers(PLACES)
        own = rng.random(EVENTS) < 0.5
        third = ITEMS // PLACES
        item = np.where(
            own, branch * third + rng.integers(third, size=EVENTS), rng.integers(ITEMS, size=EVENTS)
        )
        place = np.full(EVENTS, branch) if told else rng.integers(PLACES, size=EVENTS)
        place = np.where(rng.random(EVENTS) < 0.1, -1, place)
        found.append(
            History(
                item=item.astype(np.int64),
                event_type=np.zeros(EVENTS, np.int64),
                timestamp_ms=np.arange(EVENTS, dtype=np.int64) * 86_400_000,
                value=np.full(EVENTS, np.nan, np.float32),
                visit=np.arange(EVENTS, dtype=np.int64),
                place=place.astype(np.int64),
            )
        )
    return found


def matrix_of(histories: list[History]) -> InteractionMatrix:
    """What they bought."""
    return InteractionMatrix.from_histories(histories, num_items=ITEMS, positive_types=(0,))
