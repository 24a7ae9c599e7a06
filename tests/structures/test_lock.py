"""The order in which batches get their cache."""

from __future__ import annotations

import threading

import numpy as np
from slabcache._structures import overtakes

from slabcache import SlabCache
from support.threads import beside

SIZE, SMALL, TURNS = 50_000, 300, 20


def test_a_large_batch_has_its_turn_among_small_ones() -> None:
    """Batches have the cache in the order in which they come: none starves, however small others are."""
    cache = SlabCache(SIZE, "u8", "u8")
    keys = np.arange(SIZE)
    stop = threading.Event()

    def write_little() -> None:
        while not stop.is_set():
            cache.put_many(keys[:SMALL], keys[:SMALL])
            cache[5] = 6

    with beside(*[write_little] * 4):
        for _ in range(TURNS):
            cache.put_many(keys, keys)
        stop.set()
    cache._check()
    assert overtakes(cache) == 0
