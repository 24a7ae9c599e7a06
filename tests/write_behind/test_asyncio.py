"""The calls for asyncio."""

from __future__ import annotations

import asyncio
import threading

import pytest

from slabcache import BackpressureError, ClosedError
from support.faulty_store import FaultyStore, make


def test_calls_for_asyncio() -> None:
    async def main() -> None:
        store, cache = make(FaultyStore(rows={1: 10, 2: 20}), capacity=2, max_pending=1)
        store.gate.clear()
        first = asyncio.create_task(cache.aget(1))
        second = asyncio.create_task(cache.aget_many([1, 2, 3]))
        while not store.loads:
            await asyncio.sleep(0)  # the loop is free while the load waits
        store.gate.set()
        assert await first == 10
        assert (await second)[0].tolist() == [10, 20, 0]
        await cache.aset(5, 50)
        assert await cache.aincrement(5) == 51
        assert await cache.aincrement(1, by=5) == 15
        sums, found = await cache.aincrement_many([1, 99, 1], by=[1, 1, -1])
        assert sums[found].tolist() == [16, 15]
        with pytest.raises(KeyError):
            await cache.aincrement(99)
        assert await cache.aget(99, "none") == "none"
        store.gate.clear()
        await cache.aput_many([7], [70])
        waiting = asyncio.create_task(cache.aset(8, 80))
        while not store.saving.is_set():
            await asyncio.sleep(0)
        assert not waiting.done()
        store.gate.set()
        await waiting
        await cache.aflush()
        assert store.rows == {1: 15, 2: 20, 5: 51, 7: 70, 8: 80}
        await cache.aclose()

    asyncio.run(main())


def test_backpressure_and_failed_loads_in_asyncio() -> None:
    async def main() -> None:
        store, cache = make(capacity=1, max_pending=0, backpressure_timeout=0.02)
        store.failure = OSError("down")
        await cache.aset(1, 1)
        with pytest.raises(BackpressureError):
            await cache.aset(2, 2)
        store.failing_loads = OSError("no loads")
        with pytest.raises(OSError, match="no loads"):
            await cache.aget(3)
        store.failure = None
        await cache.aclose()
        assert store.rows == {1: 1}

    asyncio.run(main())


def test_a_cancelled_flush_leaves_nothing_behind() -> None:
    async def main() -> None:
        store, cache = make()
        store.failure = OSError("down")
        await cache.aset(1, 1)
        for wait in (cache.aflush, cache.aclose):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait(), 0.02)
            with pytest.raises(TimeoutError, match="1 rows are not in the store yet"):
                await wait(0.02)
        try:
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")]
            assert not cache._flusher._waiters
        finally:
            store.failure = None
        await cache.aclose()
        await cache.aclose()
        with pytest.raises(ClosedError):
            await cache.aflush()
        assert store.rows == {1: 1}

    asyncio.run(main())
