"""Loads that hang, and how many run at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from slabcache import WriteBehindCache
from support.faulty_store import FaultyStore


def patiently(call: Callable[[], Any]) -> Any:
    """What a call returns, though its time may be too short for a busy machine now and then."""
    while True:
        try:
            return call()
        except TimeoutError:
            continue


class Hanging(FaultyStore):
    """Loads of keys from 100 on hang until `gate` opens."""

    def __init__(self) -> None:
        super().__init__(rows={key: key * 10 for key in range(200)})
        self.under_way = 0
        self.most = 0

    def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.loading.set()
        if (keys >= 100).any():
            self.gate.wait()
        with self.lock:
            self.under_way -= 1
        return (keys * 10).astype("i8"), np.ones(len(keys), bool)


def test_loads_that_hang_stop_no_others() -> None:
    store = Hanging()
    cache = WriteBehindCache(100, store, flush_interval=1000.0, load_timeout=0.05)
    store.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        hung = [pool.submit(cache.get, key) for key in (100, 101, 102)]
        for read in hung:
            with pytest.raises(TimeoutError, match=r"Hanging.load_many .* load_timeout, 0.05 seconds"):
                read.result()
    with pytest.raises(TimeoutError):
        cache[100]
    assert store.loading.is_set()
    assert patiently(lambda: cache.increment(5)) == 51
    assert patiently(lambda: cache.get_many([5, 6, 7]))[0].tolist() == [51, 60, 70]
    store.gate.set()
    while cache._loader._flights.strays:
        pass
    assert patiently(lambda: cache[100]) == 1000
    cache.close()


def test_so_many_hang_that_no_more_are_begun() -> None:
    """Each that was given up has a thread."""
    store = Hanging()
    cache = WriteBehindCache(100, store, flush_interval=1000.0, load_timeout=0.001, loads=1)
    store.gate.clear()
    for key in range(100, 140):
        with pytest.raises(TimeoutError):
            cache.get(key)
    assert store.most <= 17
    with pytest.raises(TimeoutError):
        cache[5]
    store.gate.set()
    while cache._loader._flights.strays:
        pass
    assert patiently(lambda: cache[5]) == 50
    cache.close()


def test_in_asyncio() -> None:
    async def main() -> None:
        store = Hanging()
        cache = WriteBehindCache(100, store, flush_interval=1000.0, load_timeout=0.05)
        store.gate.clear()
        results = await asyncio.gather(*(cache.aget(key) for key in range(100, 105)), return_exceptions=True)
        assert all(isinstance(result, TimeoutError) for result in results)
        assert len(set(map(id, results))) == 5
        found: dict[int, int] = {}
        while len(found) < 3:  # the time may be too short for a busy machine now and then
            with suppress(TimeoutError):
                found[7] = await cache.aget(7)
                found |= zip([8, 9], (await cache.aget_many([8, 9]))[0].tolist(), strict=True)
        assert found == {7: 70, 8: 80, 9: 90}
        store.gate.set()
        while cache._loader._flights.strays:
            await asyncio.sleep(0)
        await cache.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("loads", [1, 3])
def test_so_many_loads_run_at_a_time(loads: int) -> None:
    store = Hanging()
    cache = WriteBehindCache(100, store, flush_interval=1000.0, loads=loads)
    store.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        reads = []
        for key in range(100, 108):
            store.loading.clear()
            reads.append(pool.submit(cache.get, key))
            if key < 100 + loads:
                store.loading.wait()
        while len(cache._loader._flights.places) < 8:
            pass
        assert store.under_way == cache._loader._flights.running == loads
        store.gate.set()
        assert [read.result() for read in reads] == [key * 10 for key in range(100, 108)]
    assert store.most <= loads
    cache.close()


def test_one_key_in_a_hundred_fails_alone() -> None:
    class Spotty(FaultyStore):
        def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if (keys % 100 == 7).any():
                raise ConnectionError("that partition is down")
            return super().load_many(keys)

    store = Spotty(rows={key: key for key in range(2000)})
    cache = WriteBehindCache(4000, store, flush_interval=1000.0)
    start = threading.Barrier(16)

    def read(first: int) -> list[tuple[int, bool]]:
        start.wait()
        failed = []
        for key in range(first, 2000, 16):
            try:
                failed.append((key, cache[key] != key))
            except ConnectionError:
                failed.append((key, True))
        return failed

    with ThreadPoolExecutor(16) as pool:
        results = [row for rows in pool.map(read, range(16)) for row in rows]
    assert sorted(key for key, failed in results if failed) == list(range(7, 2000, 100))
    with pytest.raises(ConnectionError):
        cache.get_many(range(2000))
    cache.close()
