"""What each call counts, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slabcache import SlabCache, Stats


def build() -> SlabCache:
    """Full: keys 1 to 4, freshly counted from zero."""
    cache = SlabCache(4, "u4", [("n", "u1"), ("x", "f8")])
    cache.put_many([1, 2, 3, 4], [(250, 0.0)] * 4)
    cache.reset_stats()
    return cache


def swallow(call: Callable[[], Any]) -> None:
    with pytest.raises((KeyError, OverflowError)):
        call()


# Call, then hits, misses, insertions, updates, deletions, evictions.
COUNTS: dict[str, tuple[Callable[[SlabCache], Any], tuple[int, ...]]] = {
    "[] hit": (lambda c: c[1], (1, 0, 0, 0, 0, 0)),
    "[] miss": (lambda c: swallow(lambda: c[9]), (0, 1, 0, 0, 0, 0)),
    "get hit": (lambda c: c.get(1), (1, 0, 0, 0, 0, 0)),
    "get miss": (lambda c: c.get(9), (0, 1, 0, 0, 0, 0)),
    "get_many": (lambda c: c.get_many([1, 9, 1, 8, 2]), (3, 2, 0, 0, 0, 0)),
    "setdefault hit": (lambda c: c.setdefault(1, None), (1, 0, 0, 0, 0, 0)),
    "setdefault miss": (lambda c: c.setdefault(9, (0, 0)), (0, 1, 1, 0, 0, 1)),
    "[]= there": (lambda c: c.__setitem__(1, (0, 0)), (0, 0, 0, 1, 0, 0)),
    "[]= absent": (lambda c: c.__setitem__(9, (0, 0)), (0, 0, 1, 0, 0, 1)),
    "update": (lambda c: c.update({1: (0, 0), 9: (0, 0)}), (0, 0, 1, 1, 0, 1)),
    "put_many": (lambda c: c.put_many([1, 9, 8, 9], [(0, 0)] * 4), (0, 0, 2, 2, 0, 2)),
    "increment": (lambda c: c.increment(1, "n"), (0, 0, 0, 1, 0, 0)),
    "increment by 0": (lambda c: c.increment(1, "n", 0), (0, 0, 0, 1, 0, 0)),
    "increment absent": (lambda c: swallow(lambda: c.increment(9, "n")), (0, 0, 0, 0, 0, 0)),
    "increment wraps": (lambda c: swallow(lambda: c.increment(1, "n", 6)), (0, 0, 0, 0, 0, 0)),
    "increment_many": (lambda c: c.increment_many([1, 9, 1], "n"), (0, 0, 0, 2, 0, 0)),
    "increment_many wraps": (
        lambda c: swallow(lambda: c.increment_many([1, 9, 2, 1], "n", by=3)),
        (0, 0, 0, 2, 0, 0),
    ),
    "update_fields": (lambda c: c.update_fields(1, n=1), (0, 0, 0, 1, 0, 0)),
    "update_fields with none": (lambda c: c.update_fields(1), (0, 0, 0, 1, 0, 0)),
    "update_fields absent": (
        lambda c: swallow(lambda: c.update_fields(9, n=1)),
        (0, 0, 0, 0, 0, 0),
    ),
    "del": (lambda c: c.__delitem__(1), (0, 0, 0, 0, 1, 0)),
    "del absent": (lambda c: swallow(lambda: c.__delitem__(9)), (0, 0, 0, 0, 0, 0)),
    "pop": (lambda c: c.pop(1), (0, 0, 0, 0, 1, 0)),
    "pop absent": (lambda c: c.pop(9, None), (0, 0, 0, 0, 0, 0)),
    "popitem": (lambda c: c.popitem(), (0, 0, 0, 0, 1, 0)),
    "delete_many": (lambda c: c.delete_many([1, 9, 1, 2]), (0, 0, 0, 0, 2, 0)),
    "clear": (lambda c: c.clear(), (0, 0, 0, 0, 4, 0)),
    "resize": (lambda c: c.resize(1), (0, 0, 0, 0, 0, 3)),
    "resize to more": (lambda c: c.resize(9), (0, 0, 0, 0, 0, 0)),
    "peek": (lambda c: (c.peek(1), c.peek(9)), (0, 0, 0, 0, 0, 0)),
    "peek_many": (lambda c: c.peek_many([1, 9]), (0, 0, 0, 0, 0, 0)),
    "in": (lambda c: (1 in c, 9 in c), (0, 0, 0, 0, 0, 0)),
    "contains_many": (lambda c: c.contains_many([1, 9]), (0, 0, 0, 0, 0, 0)),
    "touch": (lambda c: (c.touch(1), c.touch(9)), (0, 0, 0, 0, 0, 0)),
    "touch_many": (lambda c: c.touch_many([1, 9]), (0, 0, 0, 0, 0, 0)),
    "iteration": (lambda c: (list(c), list(c.items()), list(reversed(c))), (0,) * 6),
    "views": (lambda c: (1 in c.keys(), (1, 5) in c.items()), (0,) * 6),  # noqa: SIM118
    "snapshot": (lambda c: c.snapshot(), (0, 0, 0, 0, 0, 0)),
    "copy": (lambda c: c.copy(), (0, 0, 0, 0, 0, 0)),
    "==": (lambda c: c == c.copy(), (0, 0, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_counts(name: str) -> None:
    cache = build()
    call, expected = COUNTS[name]
    call(cache)
    assert cache.stats()[:6] == expected
    cache._check()  # the counters since construction still add up to the size (I5)


def test_fields() -> None:
    cache = build()
    cache.get_many([1, 9, 2])
    stats = cache.stats()
    assert isinstance(stats, Stats)
    assert isinstance(stats, tuple)
    assert stats._fields == (
        "hits",
        "misses",
        "insertions",
        "updates",
        "deletions",
        "evictions",
        "size",
        "capacity",
    )
    assert stats == (2, 1, 0, 0, 0, 0, 4, 4)
    assert all(type(number) is int for number in stats)
    assert stats.hit_ratio == pytest.approx(2 / 3)
    assert "hits=2" in repr(stats)


def test_hit_ratio() -> None:
    cache = build()
    assert cache.stats().hit_ratio == 0.0
    cache.get(1)
    assert cache.stats().hit_ratio == 1.0
    cache.get(9)
    assert cache.stats().hit_ratio == 0.5
    cache.reset_stats()
    assert cache.stats().hit_ratio == 0.0


def test_a_snapshot_of_the_counts() -> None:
    cache = build()
    before = cache.stats()
    cache.get(1)
    assert before.hits == 0


def test_reset_leaves_size_and_content() -> None:
    cache = build()
    cache.get(1)
    cache[9] = (1, 1)
    del cache[9]
    cache.reset_stats()
    assert cache.stats() == (0, 0, 0, 0, 0, 0, 3, 4)
    assert len(cache) == 3
    cache._check()
    cache.clear()
    assert cache.stats() == (0, 0, 0, 0, 3, 0, 0, 4)
    cache._check()


def test_counts_over_a_million_rows() -> None:
    cache = SlabCache(1000, "u4", "u1")
    keys = np.arange(1_000_000) % 3000
    assert cache.put_many(keys, np.zeros(len(keys), "u1")) == 999_000
    cache.get_many(keys)
    stats = cache.stats()
    assert stats.insertions == 1_000_000
    assert stats.evictions == 999_000
    assert stats.hits + stats.misses == 1_000_000
