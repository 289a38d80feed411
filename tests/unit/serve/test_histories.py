"""A history that is read from the end of a record gives the support of the whole record."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from raymeta.data.events import History, SupportView, support_from_events
from raymeta.serve.histories import HistoryReader
from raymeta.serve.user_events.base import StoredEvent, UserRecord

TYPES = ("click", "purchase", "view")
PLACES = ("north", "south")


@dataclass(frozen=True)
class Items:
    index_of: dict[str, int]


@dataclass(frozen=True)
class ForReading:
    """What the reader looks at. Indices run against the order of ids."""

    view: SupportView
    event_types: tuple[str, ...] = TYPES
    catalogue: Items = field(default_factory=lambda: Items({"a": 3, "b": 2, "c": 1, "d": 0}))
    user_vocab: None = None


def whole(record: UserRecord, artifact: ForReading) -> History:
    events, index_of = record.events, artifact.catalogue.index_of
    return History(
        item=np.array([index_of.get(e.item_id or "", -1) for e in events], np.int64),
        event_type=np.array(
            [TYPES.index(e.event_type) if e.event_type in TYPES else -1 for e in events], np.int64
        ),
        timestamp_ms=np.array([e.timestamp_ms for e in events], np.int64),
        value=np.array([np.nan if e.value is None else e.value for e in events], np.float32),
        visit=np.full(len(events), -1),
        place=np.array(
            [PLACES.index(e.place) if e.place in PLACES else -1 for e in events], np.int64
        ),
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_end_of_a_record_is_enough(seed: int) -> None:
    rng = random.Random(seed)
    kinds = tuple(sorted(rng.sample(range(3), rng.randrange(1, 4))))
    artifact = ForReading(
        SupportView(
            rng.randrange(1, 8),
            kinds,
            min_value=rng.choice([None, 1.5]),
            places=PLACES if seed % 2 else (),
        )
    )
    events = [
        StoredEvent(
            f"{number}",
            rng.choice(["a", "b", "c", "d", "gone", None]),
            rng.choice([*TYPES, "other"]),
            rng.randrange(6),
            value=rng.choice([None, 1.0, 2.0]),
            place=rng.choice([None, "north", "south", "nowhere"]),
        )
        for number in range(rng.randrange(40))
    ]
    record = UserRecord(events=tuple(sorted(events, key=StoredEvent.order)))
    reader = HistoryReader(artifact)  # type: ignore[arg-type]
    found = support_from_events([reader(record)], artifact.view)
    expected = support_from_events([whole(record, artifact)], artifact.view)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
