"""A store, and a table, belongs to one open cache; what becomes of a cache whose store is closed first."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import slabcache
from slabcache import ClosedError, WriteBehindCache
from slabcache.behind import flusher
from slabcache.stores import SQLiteStore
from support.faulty_store import FaultyStore, make


class Table(FaultyStore):
    """A connection to a table that others may have a connection to as well."""

    def __init__(self, rows: dict[int, int], identity: object) -> None:
        super().__init__()
        self.rows = rows
        self.identity = identity


class Closable(FaultyStore):
    def _write(self, keys: np.ndarray) -> list[int]:
        self.saving.set()
        self.gate.wait()
        if self.closed:
            raise ClosedError("the store is closed")
        return super()._write(keys)


def test_a_second_cache_on_a_store_or_table_is_refused() -> None:
    rows: dict[int, int] = {}
    store, cache = make(Table(rows, "t"))
    for second in store, Table(rows, "t"):
        with pytest.raises(
            ValueError, match=r"^store: another cache that is open .* close\(\) that one first"
        ):
            WriteBehindCache(8, second)
    other = WriteBehindCache(8, Table(rows, "u"))
    cache[1] = 1
    cache.close()
    again = WriteBehindCache(8, Table(rows, "t"))
    assert again[1] == 1
    again.close()
    other.close()
    assert all(each.store is not store for each in flusher.open_flushers())


def test_a_cache_that_was_not_made_owns_nothing() -> None:
    store = FaultyStore()
    for options in ({"capacity": 0}, {"flush_rows": 0}, {"default": "x"}):
        with pytest.raises((TypeError, ValueError)):
            WriteBehindCache(**{"capacity": 8, "store": store, **options})
    WriteBehindCache(8, store).close()


def test_a_cache_that_was_dropped_is_saved_before_another_opens() -> None:
    """As by a cell of a notebook that is run twice."""
    rows: dict[int, int] = {}
    for number in range(20):
        cache = WriteBehindCache(8, Table(rows, "t"), flush_interval=1000.0)
        assert cache.get(1, 0) == number
        cache[1] = number + 1
        del cache
    WriteBehindCache(8, Table(rows, "t")).close()
    assert rows == {1: 20}


def test_a_cache_that_is_garbage_is_saved_before_another_opens() -> None:
    rows: dict[int, int] = {}
    cache = WriteBehindCache(8, Table(rows, "t"), flush_interval=1000.0)
    cache.itself = cache  # type: ignore[attr-defined]
    cache[1] = 1
    gone = weakref.ref(cache)
    del cache
    second = WriteBehindCache(8, Table(rows, "t"))
    assert second[1] == 1
    second.close()
    gc.collect()
    assert gone() is None


def test_a_cache_that_goes_while_other_finalizers_run_makes_way() -> None:
    """The flusher is done with it meanwhile, and without the GIL its weak reference is cleared in silence."""

    class Slow:
        def __init__(self, cycle: list[object]) -> None:
            self.cycle = cycle

        def __del__(self) -> None:
            time.sleep(0.3)

    class Held(WriteBehindCache):
        cycle: list[object]

    store = FaultyStore()
    cache = Held(8, store, flush_interval=1000.0, exit_timeout=2.0)
    cache.cycle = [cache]
    cache.cycle.append(Slow(cache.cycle))
    del cache
    gc.collect()
    WriteBehindCache(8, store).close()


def test_a_cache_that_was_dropped_and_cannot_be_saved_is_told() -> None:
    rows: dict[int, int] = {}
    store = Table(rows, "t")
    store.failure = OSError("down")
    cache = WriteBehindCache(8, store, flush_interval=1000.0)
    cache.put_many([1, 2], [1, 2])
    del cache
    with pytest.raises(TimeoutError, match="dropped without close.*2 rows of it cannot be saved") as raised:
        WriteBehindCache(8, Table(rows, "t"), exit_timeout=0.2)
    assert raised.value.__cause__ is store.failure
    store.failure = None
    cache = WriteBehindCache(8, Table(rows, "t"))
    assert rows == {1: 1, 2: 2}
    cache.close()


def test_of_many_who_open_at_once_one_succeeds() -> None:
    start = threading.Barrier(8)

    def open_one(number: int) -> WriteBehindCache | None:
        start.wait()
        try:
            return WriteBehindCache(8, Table({}, "t"))
        except ValueError:
            return None

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            (cache,) = [cache for cache in pool.map(open_one, range(8)) if cache is not None]
        cache.close()
        del cache


@pytest.mark.parametrize("unsaved", [0, 3])
def test_a_store_that_was_closed_before_ends_flush_and_close(unsaved: int) -> None:
    store, cache = make(Closable())
    with pytest.raises(ClosedError) if unsaved else closing(cache), cache, closing(store):
        cache.put_many(range(unsaved), range(unsaved))
    assert cache.closed
    cache.close()
    assert all(each.store is not store for each in flusher.open_flushers())


def test_a_store_that_is_closed_gets_no_cache(tmp_path: Path) -> None:
    """What it acknowledges would never be stored."""
    store = SQLiteStore(tmp_path / "rows.db", table="rows", key="u8", value="u8")
    with WriteBehindCache(10, store) as cache:
        assert not store.closed
        cache[1] = 1
    assert store.closed
    with pytest.raises(ClosedError, match="SQLiteStore is closed.*make a new one"):
        WriteBehindCache(10, store)


def test_closed_may_mean_something_else() -> None:
    class Method(FaultyStore):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["closed"] = lambda: False

        def close(self) -> None:
            return

    with WriteBehindCache(10, Method()) as cache:
        cache[1] = 1


def test_who_waits_is_told_that_the_store_was_closed() -> None:
    store, cache = make(Closable(), capacity=2, max_pending=1)
    store.gate.clear()
    cache.put_many([1, 2, 3], [1, 2, 3])
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.flush), pool.submit(cache.__setitem__, 4, 4), pool.submit(cache.close)]
        while len(cache._flusher._waiters) < 3:
            pass
        store.closed = 1
        store.gate.set()
        for wait in waiting:
            with pytest.raises(ClosedError, match="3 rows are unsaved"):
                wait.result()
    for call in (cache.flush, lambda: cache.put_many([5], [5])):
        with pytest.raises(ClosedError):
            call()
    assert store.rows == {}


def test_in_asyncio() -> None:
    async def main() -> None:
        store, cache = make(Closable(), capacity=2, max_pending=0)
        store.closed = 1
        await cache.aput_many([1, 2], [1, 2])
        for wait in (cache.aflush(), cache.aset(3, 3), cache.aclose()):
            with pytest.raises(ClosedError, match="2 rows are unsaved"):
                await wait
        assert cache.closed

    asyncio.run(main())


def test_an_interrupt_of_the_constructor() -> None:
    """At whatever step: the next cache on the store opens."""
    folder = str(Path(slabcache.__file__).parent)
    store = FaultyStore()
    for number in itertools.count(1):
        steps = 0

        def trace(frame: FrameType, event: str, _: object, number: int = number) -> Any:
            nonlocal steps
            if not frame.f_code.co_filename.startswith(folder):
                return None
            steps += 1
            if steps == number:
                raise KeyboardInterrupt
            return trace

        first = None
        try:
            sys.settrace(trace)
            first = WriteBehindCache(4, store)
        except KeyboardInterrupt:
            assert first is None
        finally:
            sys.settrace(None)
        if first is not None:
            first.close()
        cache = WriteBehindCache(4, store, exit_timeout=60)
        cache[number] = number
        cache.close()
        assert store.rows[number] == number
        if first is not None:
            return
