"""Every event store keeps the same promises; a new one is one row of `STORES`.

What ends (ids, keys, users) is in `test_event_store_ends`.
"""

import asyncio
import contextlib
import random
import threading
from typing import Any

import pytest

from raymeta.errors import ConflictError, StoreError
from raymeta.serve.user_events.base import (
    DAY_MS,
    MAX_RANKINGS,
    AppendResult,
    EventStore,
    IdempotencyKey,
    ItemChange,
    LoggedRanking,
    UserRecord,
    UserVersion,
)
from raymeta.serve.user_events.memory import MemoryEventStore
from tests.helpers.clocks import Clock
from tests.helpers.event_stores import append, event, run


def test_an_unknown_user_is_empty_and_not_an_error(store: EventStore) -> None:
    assert run(store.read("t", "nobody")) == UserRecord()
    assert run(store.version("t", "nobody")) == UserVersion(0, 0)
    assert run(store.rankings("t", "nobody")) == ()
    assert run(store.user_ids("t", after="", limit=9)) == []
    run(store.check())


def test_what_was_appended_is_read_whole(store: EventStore) -> None:
    written = event(
        "1",
        "item",
        at=1_700_000_000_000,
        value=2.5,
        visit_id="v",
        query="q",
        ranking_id="r",
        position=3,
        propensity=0.25,
        timestamp_given=False,
        place="branch 7",
    )
    result = append(store, "t", "u", [written])
    record = run(store.read("t", "u"))
    assert result == AppendResult(1, accepted=1, duplicates=0)
    assert record.events == (written,)
    assert record.seen_items == {"item"}
    assert record.num_events == 1
    assert record.version == run(store.version("t", "u")) == UserVersion(1, 10**12)


def test_the_version_grows_only_with_what_is_added(store: EventStore) -> None:
    versions = [
        append(store, "t", "u", events).state_version
        for events in ([event("1")], [event("1")], [], [event("2"), event("3")])
    ]
    assert versions == [1, 1, 1, 2]
    assert run(store.version("t", "u")).number == 2


def test_a_repeated_event_is_a_duplicate_within_and_across_appends(store: EventStore) -> None:
    first = append(store, "t", "u", [event("1", "a"), event("1", "a"), event("2", "c")])
    again = append(store, "t", "u", [event("2", "c"), event("3", "d")])
    assert (first.accepted, first.duplicates) == (2, 1)
    assert (again.accepted, again.duplicates) == (1, 1)
    assert [e.item_id for e in run(store.read("t", "u")).events] == ["a", "c", "d"]


@pytest.mark.parametrize(
    "other",
    [
        {"item_id": "b"},
        {"at": 1},
        {"event_type": "cart"},
        {"value": 1.0},
        {"query": "q"},
        {"position": 0},
    ],
    ids=lambda values: next(iter(values)),
)
def test_an_event_id_with_another_content_is_refused_with_all_beside_it(
    store: EventStore, other: dict[str, Any]
) -> None:
    append(store, "t", "u", [event("1", "a")])
    with pytest.raises(ConflictError, match="'1'"):
        append(store, "t", "u", [event("2", "c"), event("1", **other)])
    with pytest.raises(ConflictError, match="'3'"):
        append(store, "t", "u", [event("3", "a"), event("3", **other)])
    assert [e.event_id for e in run(store.read("t", "u")).events] == ["1"]


def test_a_time_that_the_caller_did_not_give_is_no_content(store: EventStore) -> None:
    append(store, "t", "u", [event("1", at=5, timestamp_given=False)])
    again = append(store, "t", "u", [event("1", at=9, timestamp_given=False)])
    assert again.duplicates == 1
    assert [e.timestamp_ms for e in run(store.read("t", "u")).events] == [5]


def test_a_search_has_no_item_and_is_not_seen(store: EventStore) -> None:
    written = event("1", None, event_type="search", query="shoes")
    append(store, "t", "u", [written])
    record = run(store.read("t", "u"))
    assert (record.events, record.seen_items) == ((written,), frozenset())


def test_users_and_tenants_never_share(store: EventStore) -> None:
    append(store, "t", "u", [event("1", "a")])
    append(store, "t", "v", [event("1", "b")])
    append(store, "s", "u", [event("1", "c")])
    run(store.put_features("s", "u", {"age": 3}, replace=True))
    read = {key: run(store.read(*key)).seen_items for key in [("t", "u"), ("t", "v"), ("s", "u")]}
    assert read == {("t", "u"): {"a"}, ("t", "v"): {"b"}, ("s", "u"): {"c"}}
    assert run(store.read("t", "u")).features == {}
    assert run(store.user_ids("t", after="", limit=9)) == ["u", "v"]


def test_events_come_in_time_order_however_they_arrived(store: EventStore) -> None:
    append(store, "t", "u", [event("1", "b", at=5), event("2", "c", at=1)])
    append(store, "t", "u", [event("3", "a", at=5), event("4", "a", at=5, event_type="cart")])
    append(store, "t", "u", [event("5", None, at=5, event_type="search")])
    assert [e.event_id for e in run(store.read("t", "u")).events] == ["2", "5", "4", "3", "1"]


def test_only_the_last_events_are_retained_but_ids_and_seen_items_stay(store: EventStore) -> None:
    for number in range(8):
        append(store, "t", "u", [event(str(number), f"item{number}", at=number + 1)])
    late = append(store, "t", "u", [event("late", "old", at=0), event("0", "item0", at=1)])
    record = run(store.read("t", "u"))
    assert [e.timestamp_ms for e in record.events] == [4, 5, 6, 7, 8]
    assert record.seen_items == {"old", *(f"item{n}" for n in range(8))}
    assert record.num_events == 9
    assert (late.accepted, late.duplicates) == (1, 1)


def test_an_impression_is_kept_but_not_seen(store: EventStore) -> None:
    append(store, "t", "u", [event("1", "shown", event_type="impression")])
    record = run(store.read("t", "u"))
    assert record.num_events == 1
    assert record.seen_items == frozenset()


def test_concurrent_appends_to_one_user_keep_every_event_once(store: EventStore) -> None:
    """Threads with their own event loops, each event sent by two of them."""
    accepted: list[int] = []

    async def send(worker: int) -> None:
        sent = (event(f"{worker // 2}-{n}", at=n) for n in range(25))
        results = await asyncio.gather(*(store.append("t", "u", [e], received_ms=1) for e in sent))
        accepted.append(sum(r.accepted for r in results))

    threads = [threading.Thread(target=lambda w=w: run(send(w))) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = run(store.read("t", "u"))
    assert sum(accepted) == 50
    assert record.num_events == 50
    assert record.state_version == 50


@pytest.mark.parametrize("seed", range(3))
def test_an_append_gives_the_record_that_a_read_gives(
    store: EventStore, clock: Clock, seed: int
) -> None:
    """After whatever was done to the user in between, repeats and erasures among it."""
    rng = random.Random(seed)

    async def live() -> None:
        for number in range(120):
            user, what = rng.choice("uv"), rng.random()
            if what < 0.1:
                await store.put_features("t", user, {"age": number}, replace=False)
            elif what < 0.15:
                await store.erase("t", user, at_ms=number)
            elif what < 0.2:
                await store.put_items("t", [ItemChange("a")])
            elif what < 0.25:
                clock.advance(rng.choice([1, 40, 110]) * DAY_MS)
            elif what < 0.4:
                await store.append("t", user, [event(f"{number}", at=number)], received_ms=10**15)
            ids = [rng.randrange(number + 1) for _ in range(rng.randrange(1, 4))]
            added = [event(f"x{n}", item_id=rng.choice("äbc"), at=n // 4) for n in ids]
            told: list[UserRecord] = []
            key = IdempotencyKey(f"k{rng.randrange(60)}", b"body") if what > 0.9 else None
            with contextlib.suppress(ConflictError):
                _, record = await store.append_and_read(
                    "t", user, added, received_ms=10**15, key=key, ahead=told.append
                )
                assert record == await store.read("t", user)
                assert all(one is record for one in told)

    run(live())


def test_text_of_any_script_and_odd_characters_survives(store: EventStore) -> None:
    written = event("é'; --", "商品\U0001f6d2", query='"%_\\?%s')
    append(store, "täñant", "Ωuser\n:*", [written])
    run(store.put_features("täñant", "Ωuser\n:*", {"größe": "ä'\"", "list": []}, replace=True))
    record = run(store.read("täñant", "Ωuser\n:*"))
    assert record.events == (written,)
    assert record.features == {"größe": "ä'\"", "list": []}


# --- features


def test_features_are_replaced_merged_and_removed(store: EventStore) -> None:
    values = {"age": 30, "score": 1.0, "tags": ["a", "b"], "country": "DE"}
    assert run(store.put_features("t", "u", values, replace=True)) == 1
    assert run(store.read("t", "u")).features == values
    assert run(store.put_features("t", "u", {"age": 31, "tags": None}, replace=False)) == 2
    assert run(store.read("t", "u")).features == {"age": 31, "score": 1.0, "country": "DE"}
    assert run(store.put_features("t", "u", {"x": True}, replace=True)) == 3
    assert run(store.read("t", "u")).features == {"x": True}
    assert run(store.put_features("t", "u", {}, replace=True)) == 4
    assert run(store.read("t", "u")).features == {}


# --- rankings


def test_the_last_rankings_are_kept_without_a_new_version(store: EventStore) -> None:
    logged = [
        LoggedRanking(f"r{n}", n, "model", (("a", 0.25), ("b", 0.5)))
        for n in range(MAX_RANKINGS + 2)
    ]
    append(store, "t", "u", [event("1")])

    async def log() -> None:
        for ranking in logged:
            await store.log_ranking("t", "u", ranking)

    run(log())
    assert run(store.rankings("t", "u")) == tuple(logged[2:])
    assert run(store.version("t", "u")).number == 1


# --- listing and the catalogue


def test_users_are_listed_in_pages(store: EventStore) -> None:
    for name in ("b", "ä", "a", "c"):
        append(store, "t", name, [event("1")])
    run(store.put_features("t", "features only", {"x": 1}, replace=True))
    first = run(store.user_ids("t", after="", limit=2))
    rest = run(store.user_ids("t", after=first[-1], limit=9))
    assert (first, rest) == (["a", "b"], ["c", "features only", "ä"])


def test_items_are_versioned_together_and_read_by_version(store: EventStore) -> None:
    one = ItemChange("a", {"price": 1.5, "tags": [], "name": "Ä"}, available=False)
    other = ItemChange("b", {}, deleted=True)
    assert run(store.put_items("t", [one, other])) == 1
    assert run(store.put_items("t", [ItemChange("a", {"price": 2.0})])) == 2
    assert run(store.put_items("s", [ItemChange("z")])) == 1
    changes = run(store.item_changes("t", after=0))
    assert [(c.item_id, c.version) for c in changes] == [("b", 1), ("a", 2)]
    assert (changes[0].deleted, changes[1].features, changes[1].available) == (
        True,
        {"price": 2.0},
        True,
    )
    assert [c.item_id for c in run(store.item_changes("t", after=1))] == ["a"]
    append(store, "t", "u", [event("1")])
    assert (
        run(store.read("t", "u")).version.catalogue == run(store.version("t", "u")).catalogue == 2
    )
    assert run(store.version("t", "nobody")) == UserVersion(catalogue=2)
    assert run(store.read("t", "nobody")) == UserRecord(UserVersion(catalogue=2))


def test_closing_twice_is_safe_and_a_closed_store_says_so(store: EventStore) -> None:
    store.close()
    store.close()
    if isinstance(store, MemoryEventStore):
        return
    with pytest.raises(StoreError, match="closed"):
        append(store, "t", "u", [event("1")])
    with pytest.raises(StoreError, match="closed"):
        run(store.read("t", "u"))
