"""The order of events, duplicates and visits equal a slow definition, for any log."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from raymeta.data.cleaning import CleaningRules
from raymeta.data.event_order import order_events
from raymeta.data.partitions import num_partitions_for, partition_of, shard_schema

GAP_MS = 3
Event = tuple[str, str, str, int, str | None]

events = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", "ü"]),
        st.sampled_from(["a", "b", "é"]),
        st.sampled_from(["click", "view"]),
        st.integers(0, 20),
        st.sampled_from([None, "x", "y", "z"]),
    ),
    min_size=1,
    max_size=40,
)


def as_table(rows: list[Event]) -> pa.Table:
    user, item, kind, moment, visit = zip(*rows, strict=True)
    schema = shard_schema(CleaningRules(optional=("visit_id",)))
    columns = [user, item, kind, moment, visit, [0] * len(rows), range(1, len(rows) + 1)]
    return pa.table(
        [pa.array(list(c)).cast(f.type) for c, f in zip(columns, schema, strict=True)],
        schema=schema,
    )


def slow_visits(rows: list[Event]) -> list[int]:
    """Visit ordinals of one user's ordered events."""
    names: list[object] = []
    session, last = 0, None
    for _, _, _, moment, visit in rows:
        if visit is None:
            session += last is not None and moment - last > GAP_MS
            last = moment
        names.append(("gap", session) if visit is None else visit)
    first_seen = list(dict.fromkeys(names))
    return [first_seen.index(name) for name in names]


@given(events)
def test_it_equals_the_slow_definition(rows: list[Event]) -> None:
    ordered = order_events(
        as_table(rows),
        item_ids=pa.array(["a", "b", "é"]),
        event_types=pa.array(["click", "view"]),
        visit_gap_ms=GAP_MS,
    )
    wanted = sorted(set(rows), key=lambda e: (e[0].encode(), e[3], e[4] or "", e[1].encode(), e[2]))
    table = ordered.table
    found = list(
        zip(
            table["user_id"].to_pylist(),
            table["item_id"].to_pylist(),
            table["event_type"].to_pylist(),
            table["timestamp"].cast(pa.int64()).to_pylist(),
            table["visit_id"].to_pylist(),
            strict=True,
        )
    )
    assert found == wanted
    assert ordered.duplicates.num_rows == len(rows) - len(wanted)
    for start, end in zip(ordered.user_start[:-1], ordered.user_start[1:], strict=True):
        assert len({row[0] for row in found[start:end]}) == 1
        assert ordered.visit[start:end].tolist() == slow_visits(found[start:end])


@given(events, st.randoms(use_true_random=False))
def test_the_order_of_reading_changes_nothing(rows: list[Event], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    settings = {
        "item_ids": pa.array(["a", "b", "é"]),
        "event_types": pa.array(["click", "view"]),
        "visit_gap_ms": GAP_MS,
    }
    one = order_events(as_table(rows), **settings)
    two = order_events(as_table(shuffled), **settings)
    names = ["user_id", "item_id", "event_type", "timestamp", "visit_id"]
    assert one.table.select(names).equals(two.table.select(names))
    np.testing.assert_array_equal(one.visit, two.visit)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1), st.integers(1, 512))
def test_a_user_is_in_one_partition_wherever_it_is_met(users: list[str], number: int) -> None:
    together = partition_of(pa.chunked_array([users], pa.string()), number)
    assert ((together >= 0) & (together < number)).all()
    for user, partition in zip(users, together, strict=True):
        assert partition_of(pa.chunked_array([[user]], pa.string()), number)[0] == partition


@given(st.integers(0, 10**10))
def test_partitions_are_bounded(rows: int) -> None:
    assert 1 <= num_partitions_for(rows) <= 512
