"""What ends in an event store: keys, and users that are erased or forgotten."""

import pytest

from raymeta.errors import ConfigError, ConflictError
from raymeta.serve.user_events.base import (
    DAY_MS,
    AppendResult,
    EventStore,
    IdempotencyKey,
    LoggedRanking,
    Retention,
    UserRecord,
    UserVersion,
)
from tests.helpers.clocks import Clock
from tests.helpers.event_stores import RETENTION, append, event, run

# --- idempotency keys


def key(name: str, body: str = "body") -> IdempotencyKey:
    return IdempotencyKey(name, body.encode())


def test_a_request_sent_again_with_its_key_gets_its_first_answer(store: EventStore) -> None:
    first = append(store, "t", "u", [event("1"), event("2")], key=key("k"))
    append(store, "t", "u", [event("3")])
    again = append(store, "t", "u", [event("1"), event("2")], key=key("k"))
    assert first == AppendResult(1, accepted=2, duplicates=0)
    assert again == AppendResult(1, accepted=2, duplicates=0, replayed=True)
    assert run(store.read("t", "u")).num_events == 3
    assert append(store, "other", "u", [event("1")], key=key("k")).replayed is False


def test_a_key_for_another_request_or_user_is_refused(store: EventStore) -> None:
    append(store, "t", "u", [event("1")], key=key("k"))
    for user, body in (("u", "another body"), ("v", "body")):
        with pytest.raises(ConflictError, match="'k'"):
            append(store, "t", user, [event("9")], key=key("k", body))
    assert run(store.read("t", "u")).num_events == 1
    assert run(store.read("t", "v")).num_events == 0


def test_a_key_is_free_again_after_its_time(store: EventStore, clock: Clock) -> None:
    append(store, "t", "u", [event("1")], key=key("k"))
    clock.advance(RETENTION.idempotency_ttl_ms + 1)
    assert append(store, "t", "u", [event("2")], key=key("k", "another body")).accepted == 1


# --- erasure


def test_an_erased_user_is_empty_and_the_version_goes_on(store: EventStore) -> None:
    append(store, "t", "u", [event("1"), event("2")], key=key("k"))
    run(store.put_features("t", "u", {"age": 1}, replace=True))
    run(store.log_ranking("t", "u", LoggedRanking("r", 1, "m", ())))
    erasure = run(store.erase("t", "u", at_ms=100))
    record = run(store.read("t", "u"))
    assert (erasure.generation, erasure.num_events) == (1, 2)
    assert erasure.state_version == record.state_version == 3
    assert (record.events, record.seen_items, record.num_events) == ((), frozenset(), 0)
    assert (record.features, record.generation, record.is_known) == ({}, 1, False)
    assert run(store.rankings("t", "u")) == ()
    assert run(store.user_ids("t", after="", limit=9)) == []


def test_no_event_of_before_an_erasure_comes_back(store: EventStore) -> None:
    append(store, "t", "u", [event("1", "a", at=50)], received_ms=60)
    run(store.erase("t", "u", at_ms=100))
    again = append(store, "t", "u", [event("1", "a", at=50)], received_ms=200)
    queued = append(store, "t", "u", [event("2", "b", at=99)], received_ms=200)
    in_flight = append(store, "t", "u", [event("3", "c", at=150)], received_ms=100)
    no_time = event("1", "a", at=50, timestamp_given=True)
    assert (again.accepted, again.duplicates) == (0, 1)
    assert (queued.accepted, queued.erased) == (0, 1)
    assert (in_flight.accepted, in_flight.erased) == (0, 1)
    assert append(store, "t", "u", [no_time], received_ms=300).duplicates == 1
    assert run(store.read("t", "u")).num_events == 0


def test_a_visitor_who_shops_on_starts_anew(store: EventStore) -> None:
    append(store, "t", "u", [event("1", "a", at=50)])
    run(store.erase("t", "u", at_ms=100))
    new = append(store, "t", "u", [event("2", "b", at=101)], received_ms=101)
    record = run(store.read("t", "u"))
    assert new == AppendResult(3, accepted=1, duplicates=0)
    assert (record.num_events, record.seen_items, record.generation) == (1, {"b"}, 1)
    assert run(store.erase("t", "u", at_ms=200)).generation == 2


def test_an_erasure_that_comes_late_does_not_take_what_came_after_it(store: EventStore) -> None:
    append(store, "t", "u", [event("1", at=50)])
    first = run(store.erase("t", "u", at_ms=100))
    append(store, "t", "u", [event("2", at=150)], received_ms=150)
    for late_ms in (90, 100):
        again = run(store.erase("t", "u", at_ms=late_ms))
        assert (again.generation, again.num_events) == (first.generation, 0)
    assert [e.event_id for e in run(store.read("t", "u")).events] == ["2"]


def test_an_unknown_user_can_be_erased_before_a_late_event_arrives(store: EventStore) -> None:
    assert run(store.erase("t", "u", at_ms=100)).generation == 1
    assert append(store, "t", "u", [event("1", at=90)], received_ms=150).erased == 1
    assert run(store.read("t", "u")).is_known is False


# --- expiry


def test_a_user_is_forgotten_after_its_time_and_starts_another_epoch(
    store: EventStore, clock: Clock
) -> None:
    append(store, "t", "u", [event("1", "a")])
    before = run(store.version("t", "u"))
    clock.advance(100 * DAY_MS)
    assert run(store.read("t", "u")).num_events == 1
    clock.advance(1)
    assert run(store.read("t", "u")) == UserRecord()
    assert run(store.version("t", "u")) == UserVersion(0, 0)
    assert run(store.user_ids("t", after="", limit=9)) == []
    assert append(store, "t", "u", [event("1", "b")]).accepted == 1
    after = run(store.version("t", "u"))
    assert (after.number, after.epoch_ms) == (1, clock.at_ms)
    assert after != before
    assert run(store.read("t", "u")).seen_items == {"b"}


def test_sweeping_removes_what_has_expired_and_nothing_else(
    store: EventStore, clock: Clock
) -> None:
    append(store, "t", "erased", [event("1")])
    run(store.erase("t", "erased", at_ms=100))
    append(store, "t", "stays", [event("1", "a")])
    assert run(store.sweep()) == 0
    clock.advance(31 * DAY_MS)
    append(store, "t", "stays", [event("2", "b")])
    assert run(store.sweep()) >= 2  # the tombstone, and the first event id of the other
    assert append(store, "t", "erased", [event("1", at=1)]).accepted == 1
    assert append(store, "t", "stays", [event("2", "b")]).duplicates == 1
    assert append(store, "t", "stays", [event("1", "another")]).accepted == 1
    assert run(store.read("t", "stays")).num_events == 3
    clock.advance(101 * DAY_MS)
    run(store.sweep())
    assert run(store.user_ids("t", after="", limit=9)) == []


def test_a_tombstone_that_falls_before_the_ids_it_guards_is_refused() -> None:
    with pytest.raises(ConfigError, match="before event ids"):
        Retention(events=1, user_ttl_ms=DAY_MS, event_id_ttl_ms=DAY_MS + 1)
