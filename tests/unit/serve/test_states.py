"""The state cache: bounded in bytes and in age, least recently used out first."""

import torch

from raymeta.serve.states import ENTRY_OVERHEAD_BYTES, AdaptedUser, StateCache, StateKey
from tests.helpers.clocks import Clock


def user(width: int = 256) -> AdaptedUser:
    return AdaptedUser({"context": torch.zeros(1, width)}, seen=(), bought=(), num_support=1)


def key(user_id: str, number: int = 1) -> StateKey:
    return StateKey("t", user_id, "model", catalogue=0, number=number, epoch_ms=0)


def cache_of(max_bytes: int, clock: Clock | None = None) -> StateCache:
    return StateCache(max_bytes=max_bytes, max_age_ms=1000, now_ms=clock or Clock(0))


def test_the_least_recently_used_goes_first() -> None:
    cache = cache_of(2 * user().num_bytes())
    cache.put(key("a"), user())
    cache.put(key("b"), user())
    assert cache.get(key("a")) is not None
    cache.put(key("c"), user())
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) is not None
    assert cache.num_bytes == 2 * (4 * 256 + ENTRY_OVERHEAD_BYTES)


def test_putting_again_replaces() -> None:
    cache = cache_of(1 << 20)
    cache.put(key("a"), user(1000))
    small = user(10)
    cache.put(key("a"), small)
    assert len(cache) == 1
    assert cache.num_bytes == small.num_bytes()


def test_what_does_not_fit_is_not_kept() -> None:
    cache = cache_of(0)
    cache.put(key("a"), user())
    assert len(cache) == 0
    assert cache.num_bytes == 0


def test_a_state_is_found_by_all_it_depends_on_and_nothing_less() -> None:
    cache = cache_of(1 << 20)
    cache.put(key("a"), user())
    assert cache.get(key("a")) is not None
    for name, other in {
        "tenant": "s",
        "user_id": "b",
        "model_version": "other",
        "catalogue": 1,
        "number": 2,
        "epoch_ms": 1,
    }.items():
        assert cache.get(key("a")._replace(**{name: other})) is None, name


def test_an_entry_ends_with_its_age_however_often_it_is_read() -> None:
    clock = Clock(0)
    cache = cache_of(1 << 20, clock)
    cache.put(key("a"), user())
    cache.put(key("b"), user())
    clock.advance(1000)
    assert cache.get(key("a")) is not None
    clock.advance(1)
    assert cache.get(key("a")) is None
    assert cache.drop_old() == 1
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_every_version_of_a_user_can_be_dropped() -> None:
    cache = cache_of(1 << 20)
    for number in (1, 2):
        cache.put(key("a", number), user())
    cache.put(key("b"), user())
    cache.drop_user("t", "a")
    assert len(cache) == 1
    assert cache.num_bytes == user().num_bytes()
