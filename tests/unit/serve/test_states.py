"""The state cache: bounded in bytes, least recently used out first."""

import torch

from raymeta.serve.states import ENTRY_OVERHEAD_BYTES, AdaptedUser, StateCache


def user(width: int = 256) -> AdaptedUser:
    return AdaptedUser({"context": torch.zeros(1, width)}, seen=(), num_support=1)


def test_the_least_recently_used_goes_first() -> None:
    cache = StateCache(max_bytes=2 * user().num_bytes())
    cache.put("a", user())
    cache.put("b", user())
    assert cache.get("a") is not None
    cache.put("c", user())
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.num_bytes == 2 * (4 * 256 + ENTRY_OVERHEAD_BYTES)


def test_putting_again_replaces() -> None:
    cache = StateCache(max_bytes=1 << 20)
    cache.put("a", user(1000))
    small = user(10)
    cache.put("a", small)
    assert len(cache) == 1
    assert cache.num_bytes == small.num_bytes()


def test_what_does_not_fit_is_not_kept() -> None:
    cache = StateCache(max_bytes=0)
    cache.put("a", user())
    assert len(cache) == 0
    assert cache.num_bytes == 0
