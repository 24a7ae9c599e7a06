"""What does it cost to make a cache, and to make it larger?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from measuring.memory import resident_bytes
from measuring.read_states import KEY, VALUE, Rows
from slabcache import SlabCache

from .clock import Clock, Keep
from .full import FullCache
from .sizes import HUGE, LARGE
from .workload import chunks

ROUNDS = 3


def test_construction(clock: Clock, cut: Callable[[int], int]) -> None:
    clock(
        lambda: SlabCache(cut(HUGE), key=KEY, value=VALUE),
        tuple,
        name="slabcache",
        entries=HUGE,
        operations=1,
    )


def resident_of_new(entries: int) -> dict[str, Any]:
    """Bytes that are resident after the construction, before any write."""
    SlabCache(1, key=KEY, value=VALUE)
    before = resident_bytes()
    cache = SlabCache(entries, key=KEY, value=VALUE)
    return {"resident_bytes": resident_bytes() - before, "nbytes": cache.nbytes}


def test_resident_of_new(record: Callable[..., None], cut: Callable[[int], int]) -> None:
    record(resident_of_new, cut(HUGE), name="slabcache", entries=HUGE)


def test_resize(clock: Clock, touched: Callable[[str, int], FullCache]) -> None:
    full = touched("slabcache", LARGE)
    original = full.slabcache

    def used_copy() -> tuple[Any]:
        """A copy keeps the order, but not in memory; this makes it one that has been used."""
        cache = copy.copy(original)
        cache.touch_many(full.present(len(cache)))
        return (cache,)

    clock(
        lambda cache: cache.resize(2 * cache.capacity),
        used_copy,
        name="slabcache",
        entries=LARGE,
        operations=1,
        rounds=ROUNDS,
    )


def test_refill(clock: Clock, touched: Callable[[str, int], FullCache], keep: Keep) -> None:
    full = touched("slabcache", LARGE)
    original = full.slabcache
    keys, values = keep("snapshot", LARGE, original.snapshot)

    def refill(keys: Rows, values: Rows) -> SlabCache:
        cache = SlabCache(2 * original.capacity, key=KEY, value=VALUE)
        for some_keys, some_values in zip(chunks(keys), chunks(values), strict=True):
            cache.put_many(some_keys, some_values)
        return cache

    clock(
        refill,
        lambda: (keys, values),
        name="slabcache",
        entries=LARGE,
        operations=1,
        rounds=ROUNDS,
    )
