"""resize() where slots keep their numbers, and where they do not."""

import numpy as np
import pytest

from slabcache import SlabCache

N = 50_000


def filled(capacity: int) -> SlabCache:
    cache = SlabCache(capacity, key="u8", value="u8")
    cache.put_many(np.arange(capacity), np.arange(capacity))
    return cache


def content(cache: SlabCache) -> list[tuple[int, int]]:
    cache._check()
    return list(cache.items())


@pytest.mark.parametrize("capacity", [N // 2, N, 2 * N])
def test_the_most_recent_entries_stay_in_order(capacity: int) -> None:
    cache = filled(N)
    cache.touch_many(np.random.default_rng(7).permutation(N))
    expected = list(cache.items())[-capacity:]
    assert cache.resize(capacity) == max(N - capacity, 0)
    assert content(cache) == expected


@pytest.mark.parametrize("capacity", [N // 2, N, 2 * N])
@pytest.mark.parametrize("step", [2, 10, 1000], ids="one in {}".format)
def test_deleted_slots_are_used_again(capacity: int, step: int) -> None:
    cache = filled(N)
    cache.delete_many([key for key in range(N) if key % step])
    kept = [(key, key) for key in range(0, N, step)][-capacity:]
    cache.resize(capacity)
    assert content(cache) == kept
    room = capacity - len(kept)
    assert cache.put_many(N + np.arange(room), np.zeros(room, "u8")) == 0
    assert content(cache)[: len(kept)] == kept


def test_a_cleared_cache_may_shrink() -> None:
    """Hints from before the clearing name slots that the smaller arena has not."""
    cache = filled(N)
    cache.touch_many(np.random.default_rng(7).permutation(N))
    cache.put_many(N + np.arange(64), np.arange(64))
    cache.clear()
    cache.put_many(np.arange(10), np.arange(10))
    assert cache.resize(10) == 0
    cache.put_many(100 + np.arange(40), np.arange(40))
    assert content(cache) == [(100 + key, key) for key in range(30, 40)]
