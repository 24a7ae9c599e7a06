"""Writes that wait for room have it in the order in which they have come: none starves beside small ones."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from slabcache import BackpressureError, WriteBehindCache
from write_behind.faulty_store import FaultyStore

SLOTS = 12


def full_cache(store: FaultyStore, **options: Any) -> WriteBehindCache:
    """All of its slots are unsaved, and the store takes nothing until its gate is opened."""
    store.gate.clear()
    cache = WriteBehindCache(8, store, max_pending=SLOTS - 8, flush_interval=1000.0, **options)
    for key in range(SLOTS):
        cache[key] = key
    return cache


def wait_until(condition: Any) -> None:
    while not condition():
        time.sleep(0.001)


def waiting(cache: WriteBehindCache) -> int:
    return len(cache._flusher._rooms)


class OneByOne(FaultyStore):
    """It saves a row at a time, as a slow store would, which leaves little room at a time."""

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        super().save_many(keys, values)
        time.sleep(0.0005)


def test_a_large_write_does_not_starve_beside_small_ones() -> None:
    store = OneByOne()
    cache = full_cache(store, flush_rows=1)
    stop = threading.Event()

    def write(start: int) -> int:
        key = start
        while not stop.is_set():
            key += 1
            cache[key] = 0
        return key - start

    with ThreadPoolExecutor(4) as pool:
        store.gate.set()
        small = [pool.submit(write, number * 10**6) for number in (1, 2, 3)]
        wait_until(lambda: waiting(cache) == 3)
        for round_ in range(3):
            large = pool.submit(cache.put_many, np.arange(SLOTS) + 10**7 * (round_ + 1), np.arange(SLOTS))
            large.result()
        stop.set()
        assert all(future.result() > 3 for future in small)  # nor do they
    cache.close()
    assert store.rows[3 * 10**7 + SLOTS - 1] == SLOTS - 1


def test_what_is_kept_is_kept_from_overwrites_of_saved_rows_too() -> None:
    store = FaultyStore()
    cache = full_cache(store)
    store.gate.set()
    cache.flush()
    assert cache.stats().dirty == 0
    store.gate.clear()
    cache.put_many(np.arange(6), np.zeros(6, "i8"))
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(cache.put_many, np.arange(100, 107), np.zeros(7, "i8"))  # 6 slots are free
        wait_until(lambda: waiting(cache) == 1)
        held = [key for key in list(cache) if key >= 6]
        assert held
        assert not cache._attempt_put(held[0], 1)  # a saved row, in memory
        assert cache._attempt_put(0, 1)  # an unsaved one takes no room
        assert not cache._attempt_put(500, 1)
        store.gate.set()
        large.result()
    assert cache._attempt_put(held[0], 1)
    cache.close()


def test_what_the_first_does_not_need_is_there_for_all() -> None:
    store = FaultyStore()
    cache = full_cache(store)
    store.gate.set()
    cache.flush()
    store.gate.clear()
    cache.put_many(np.arange(6), np.zeros(6, "i8"))
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(cache.put_many, np.arange(100, 110), np.zeros(10, "i8"))
        wait_until(lambda: waiting(cache) == 1)
        assert not cache._attempt_put(500, 1)  # 2 of 12 are not kept for the ten, and 6 are unsaved
        store.gate.set()
        large.result()
    cache.flush()
    cache.close()


@pytest.mark.parametrize("way", ["timeout", "cancelled"])
def test_one_that_gives_up_makes_way(way: str) -> None:
    store = FaultyStore()
    cache = full_cache(store)
    store.gate.set()
    cache.flush()
    store.gate.clear()
    cache.put_many(np.arange(6), np.zeros(6, "i8"))

    async def run() -> None:
        large = asyncio.create_task(cache.aput_many(np.arange(100, 110), np.zeros(10, "i8")))
        await asyncio.sleep(0)
        while waiting(cache) < 1:
            await asyncio.sleep(0.001)
        small = asyncio.create_task(cache.aset(500, 1))
        while waiting(cache) < 2:
            await asyncio.sleep(0.001)
        assert not small.done()
        if way == "cancelled":
            large.cancel()
            with pytest.raises(asyncio.CancelledError):
                await large
        else:
            cache._patience = 0.0
            with pytest.raises(BackpressureError):
                await cache.aput_many(np.arange(200, 210), np.zeros(10, "i8"))
            large.cancel()
        await small  # though the store has saved nothing

    asyncio.run(run())
    assert cache[500] == 1
    assert cache._flusher.line.first() is None
    store.gate.set()
    cache.close()


def test_room_that_rows_which_fail_will_never_leave_is_kept_for_nobody() -> None:
    store = FaultyStore()
    store.refusal = RuntimeError("damaged")
    store.refused = {0}
    cache = full_cache(store, flush_rows=4)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(cache.put_many, np.arange(100, 100 + SLOTS), np.zeros(SLOTS, "i8"))
        wait_until(lambda: waiting(cache) == 1)
        store.gate.set()
        wait_until(lambda: cache.stats().failing == 1)
        for key in range(1000, 1100):
            cache[key] = 1
        assert not large.done()
        store.refused = set()
        large.result()
    cache.close()


def test_on_rejected_may_write_though_others_wait() -> None:
    """It runs in the thread that makes room, which cannot wait for it."""
    store = FaultyStore()
    store.refused = {0}
    done: list[str] = []

    def correct(keys: np.ndarray, values: np.ndarray, error: BaseException) -> None:
        try:
            cache[10_000] = 1
            done.append("written")
        except RuntimeError as failure:
            done.append(str(failure))

    cache = full_cache(store, on_rejected=correct)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(cache.put_many, np.arange(100, 100 + SLOTS), np.zeros(SLOTS, "i8"))
        wait_until(lambda: waiting(cache) == 1)
        store.gate.set()
        large.result()
    cache.close()
    assert done == ["written"]
    assert store.rows[10_000] == 1
