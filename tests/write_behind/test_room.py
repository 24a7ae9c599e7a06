"""Room is kept for the write that has waited longest, but never for one that may be unable to go on."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from slabcache import BackpressureError, RowsRejected, WriteBehindCache
from slabcache.behind.calls import Calls
from slabcache.behind.core import NO_ROOM
from slabcache.behind.request import CREATE, Request
from support.faulty_store import FaultyStore

LARGE = np.arange(100, 160)
WRITERS, BATCHES = 3, 300  # they write until the store has had so many batches


class Slow(FaultyStore):
    refuses = False

    def _write(self, keys: np.ndarray) -> list[Any]:
        time.sleep(0.001)
        if self.refuses and any(key % 20 == 3 for key in keys.tolist()):
            raise RowsRejected("one row in twenty")
        return super()._write(keys)


def writes_new(cache: WriteBehindCache, number: int) -> None:
    cache[1000 + number] = 1


def writes_known(cache: WriteBehindCache, number: int) -> None:
    cache[random.randrange(60)] = number


def increments(cache: WriteBehindCache, number: int) -> None:
    cache.increment(random.randrange(60))


def updates_many(cache: WriteBehindCache, number: int) -> None:
    cache.put_many([number % 60, 1000 + number], [1, 1])


def pops_items(cache: WriteBehindCache, number: int) -> None:
    cache.get(1000 + number)  # a default, which becomes an entry that the store has
    try:
        cache.popitem()
    except KeyError:
        return


LARGE_WRITES: dict[str, Callable[[WriteBehindCache], object]] = {
    "put_many": lambda cache: cache.put_many(LARGE, LARGE),
    "aput_many": lambda cache: asyncio.run(cache.aput_many(LARGE, LARGE)),
    "increment_many": lambda cache: cache.increment_many(LARGE),
}


@pytest.mark.parametrize("small", [writes_new, writes_known, increments, updates_many, pops_items])
@pytest.mark.parametrize("large", LARGE_WRITES)
def test_a_large_write_ends_beside_small_ones(
    large: str, small: Callable[[WriteBehindCache, int], None]
) -> None:
    share_with_small(Slow(), LARGE_WRITES[large], small)


def test_a_large_write_ends_beside_refused_rows() -> None:
    store = Slow()
    store.refuses = True
    keys = LARGE[LARGE % 20 != 3]
    share_with_small(store, lambda cache: cache.put_many(keys, keys), writes_new)


def share_with_small(
    store: FaultyStore,
    large: Callable[[WriteBehindCache], object],
    small: Callable[[WriteBehindCache, int], None],
) -> None:
    numbers = itertools.count()
    threads = []
    options: dict[str, Any] = {"flush_interval": 0, "flush_rows": 8, "on_rejected": lambda *_: None}
    with WriteBehindCache(64, store, max_pending=0, default=0, **options) as cache:

        def write() -> None:
            while cache.stats().flushes < BATCHES:
                small(cache, next(numbers))

        for _ in range(WRITERS):
            threads.append(threading.Thread(target=write))
            threads[-1].start()
        while cache.stats().flushes < 10:
            time.sleep(0.001)
        large(cache)
        batches = cache.stats().flushes
        cache._flusher.counts.flushes = BATCHES  # enough
        for thread in threads:
            thread.join()
        cache._check()
    assert batches < BATCHES


@contextmanager
def waiting(store: FaultyStore, **options: Any) -> Iterator[tuple[WriteBehindCache, Request]]:
    """A cache of four slots, two of them unsaved, and a write of three that has asked for room."""
    with WriteBehindCache(4, store, max_pending=0, **options) as cache:
        cache.put_many([1, 2], [1, 2])
        yield cache, ask(cache, 3)


@contextmanager
def held(store: FaultyStore, **options: Any) -> Iterator[WriteBehindCache]:
    """A cache of four slots whose store does not answer."""
    store.gate.clear()
    with WriteBehindCache(4, store, max_pending=0, **options) as cache:
        try:
            yield cache
        finally:
            store.gate.set()


def ask(cache: WriteBehindCache, rows: int, request: Request | None = None) -> Request:
    keys = np.arange(10, 10 + rows, dtype="u8").view(cache._key_schema.packed)
    request = request or Request(cache, keys, CREATE)
    request.find_first()
    assert cache._put(request.keys, np.zeros(rows, cache._value_schema.packed), request, False) is None
    cache._ask_for_room(request)
    return request


def test_others_find_what_is_left() -> None:
    store = FaultyStore()
    with waiting(store) as (cache, request):
        assert not cache._attempt_put(3, 3)
        assert cache._attempt_put(1, 5)  # is unsaved already
        cache._release_room(request)
        assert cache._attempt_put(3, 3)
    assert store.rows == {1: 5, 2: 2, 3: 3}


def test_a_row_that_is_being_saved_is_not_kept_from_it() -> None:
    """Rows that are written all the time would never be saved."""
    store = FaultyStore()
    with held(store) as cache:
        cache[1] = 1
        saving = threading.Thread(target=cache.flush)
        saving.start()
        store.saving.wait()
        cache[2] = 2
        request = ask(cache, 4)
        assert not cache._attempt_put(1, 5)
        assert cache._attempt_put(2, 5)
        cache._release_room(request)
        assert cache._attempt_put(1, 5)
    saving.join()
    assert store.rows == {1: 5, 2: 5}


def fails(store: FaultyStore, large: asyncio.Task[Any]) -> None:
    store.failure = OSError("away")
    store.gate.set()


def cancels(store: FaultyStore, large: asyncio.Task[Any]) -> None:
    large.cancel()


@pytest.mark.parametrize("ends", [fails, cancels])
@pytest.mark.parametrize("name", ["aset", "aincrement", "apop"])
def test_a_row_that_was_being_saved_waits_no_longer_than_room_is_kept(
    name: str, ends: Callable[[FaultyStore, asyncio.Task[Any]], None]
) -> None:
    store = FaultyStore()
    with held(store) as cache:
        cache.put_many([1, 2, 3, 4], [1, 1, 1, 1])
        saving = threading.Thread(target=cache.flush)
        saving.start()
        store.saving.wait()
        small: dict[str, Callable[[], Any]] = {
            "aset": lambda: cache.aset(2, 5),
            "aincrement": lambda: cache.aincrement(2, by=4),
            "apop": lambda: asyncio.to_thread(cache.pop, 2),
        }

        async def write() -> None:
            large = asyncio.create_task(cache.aput_many([10, 11], [0, 0]))
            while len(cache._flusher._waiters) < 2:
                await asyncio.sleep(0)
            hot = asyncio.create_task(small[name]())
            while len(cache._flusher._waiters) < 3:
                assert not hot.done()
                await asyncio.sleep(0)
            ends(store, large)
            await hot  # the store has taken nothing
            assert not store.rows
            store.failure = None
            store.gate.set()
            await asyncio.gather(large, return_exceptions=True)

        asyncio.run(write())
    saving.join()
    assert store.rows.get(2) == (None if name == "apop" else 5)


def test_rows_that_fail_leave_too_little_room() -> None:
    """No room is kept for a write that cannot have it."""
    store = FaultyStore()
    store.refused, store.refusal = {1, 2}, OSError("these rows")
    with WriteBehindCache(4, store, max_pending=0, flush_interval=0) as cache:
        cache.put_many([1, 2], [1, 2])
        cache[3] = 3
        while cache.stats().failing < 2 or cache.stats().dirty > 2:
            time.sleep(0.001)
        ask(cache, 3)
        is_kept = not cache._attempt_put(4, 4)
        store.refused = set()
    assert not is_kept


@pytest.mark.parametrize("gives_up", [True, False])
def test_who_was_kept_from_writing_is_told(gives_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: it need not look by itself."""
    monkeypatch.setattr("slabcache.behind.calls._LOOK_AGAIN", 1000.0)
    with held(FaultyStore(), backpressure_timeout=4) as cache:
        cache.put_many([1, 2], [1, 2])
        large = cache._putting([10, 11, 12], [0, 0, 0], False)
        assert next(large).freed == 1  # it waits, and room is kept for it
        with ThreadPoolExecutor(1) as pool:
            small = pool.submit(cache.__setitem__, 3, 3)
            while not cache._flusher._denied:
                assert not small.done()
                time.sleep(0.001)
            (waiter,) = cache._flusher._denied
            if gives_up:
                large.close()
            else:
                cache._let_go_of_room()
            assert waiter.is_met
            small.result()
        assert not cache._flusher._denied
        large.close()


def test_a_load_that_fails_after_the_wait() -> None:
    store = FaultyStore(rows={1: 1, 2: 2})
    with WriteBehindCache(4, store, max_pending=0) as cache:
        cache.put_many([5, 6, 7], [0, 0, 0])
        steps = cache._incrementing([1, 2], None, 1)
        assert next(steps) is None
        cache._loader.wait(next(steps))
        assert next(steps).freed == 1  # it waits for room
        cache.invalidate_many([1, 2])
        store.failing_loads = OSError("no")
        cache.delete_many([5])
        assert not cache._attempt_put(8, 8)
        assert next(steps) is None
        cache._loader.wait(next(steps))
        with pytest.raises(OSError, match="no"):
            next(steps)
        assert cache._attempt_put(8, 8)


def test_a_store_that_writes_while_it_saves() -> None:
    """In the thread that writes behind, which cannot wait, and a row of the batch."""

    class Writing(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            if not self.saves:
                ask(cache, 4)
                cache[2] = 5
            super().save_many(keys, values)

    store = Writing()
    with WriteBehindCache(4, store, max_pending=0) as cache:
        cache.put_many([1, 2], [1, 2])
        cache.flush()
    assert store.rows == {1: 1, 2: 5}


def test_popitem_waits_as_well() -> None:
    with WriteBehindCache(4, FaultyStore(rows={7: 7}), max_pending=0) as cache:
        assert cache[7] == 7
        cache.put_many([1, 2], [1, 2])
        request = ask(cache, 3)
        assert cache._delete_least_recent() is NO_ROOM
        cache._release_room(request)
        assert cache.popitem() == (7, 7)


def test_no_room_is_kept_until_the_store_takes_rows_again() -> None:
    store = FaultyStore()
    with waiting(store) as (cache, _):
        store.failure = OSError("away")
        with pytest.raises(TimeoutError):
            cache.flush(0.05)
        ask(cache, 3)
        store.failure = None
        assert cache._attempt_put(3, 3)
        cache.flush()
        cache.put_many([1, 2], [5, 5])
        ask(cache, 3)
        assert not cache._attempt_put(4, 4)


def test_an_older_write_goes_first() -> None:
    with waiting(FaultyStore()) as (cache, first):
        second = ask(cache, 4)
        cache._release_room(second)
        assert not cache._attempt_put(3, 3)
        cache._release_room(first)
        second = ask(cache, 4, second)
        ask(cache, 3, first)  # has a lower number
        cache._release_room(second)
        assert not cache._attempt_put(3, 3)
        cache._release_room(first)
        assert cache._attempt_put(3, 3)


def test_one_that_does_not_come_back() -> None:
    """As a generator that an exception keeps."""
    with waiting(FaultyStore()) as (cache, _):
        cache.put_many([3, 4], [3, 4])
        assert sorted(cache) == [1, 2, 3, 4]


@pytest.mark.parametrize("failure", [OSError("away"), None])
def test_a_store_that_is_away(failure: Exception | None) -> None:
    """It fails, or does not answer: what room there is, is for all."""
    store = FaultyStore()
    store.failure = failure
    if failure is None:
        store.gate.clear()
    cache = WriteBehindCache(4, store, max_pending=0)
    cache.put_many([1, 2], [1, 2])
    large = threading.Thread(target=cache.put_many, args=([10, 11, 12], [0, 0, 0]))
    large.start()
    while not cache._flusher._waiters:
        time.sleep(0.001)
    cache[3] = 3
    cache[4] = 4
    assert cache._unsaved()[0] == 4
    store.failure = None
    store.gate.set()
    large.join()
    cache.close()
    assert sorted(store.rows) == [1, 2, 3, 4, 10, 11, 12]


def test_an_event_loop_that_another_write_blocks() -> None:
    store = FaultyStore()
    with WriteBehindCache(4, store, max_pending=0) as cache:
        cache.put_many([1, 2], [1, 2])

        async def write() -> None:
            large = asyncio.create_task(cache.aput_many([10, 11, 12], [0, 0, 0]))
            while not cache._flusher._waiters:
                await asyncio.sleep(0)
            for key in (3, 4, 5, 6):
                cache[key] = key
            await large

        asyncio.run(write())
    assert sorted(store.rows) == [1, 2, 3, 4, 5, 6, 10, 11, 12]


def test_one_that_is_cancelled() -> None:
    store = FaultyStore()
    with held(store) as cache:
        cache.put_many([1, 2], [1, 2])

        async def write() -> None:
            large = asyncio.create_task(cache.aput_many([10, 11, 12], [0, 0, 0]))
            while not cache._flusher._waiters:
                await asyncio.sleep(0)
            assert not cache._attempt_put(3, 3)
            large.cancel()
            await asyncio.gather(large, return_exceptions=True)
            assert cache._attempt_put(3, 3)

        asyncio.run(write())


def test_one_that_gives_up() -> None:
    store = FaultyStore()
    with held(store, backpressure_timeout=0.05) as cache:
        cache.put_many([1, 2], [1, 2])
        with pytest.raises(BackpressureError):
            cache.put_many([10, 11, 12], [0, 0, 0])
        assert cache._attempt_put(3, 3)
        ask(cache, 3)
        with pytest.raises(BackpressureError):
            cache[4] = 4  # room is kept


def test_the_thread_that_writes_behind_takes_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot wait, least of all for itself: nor does it try again until a lease ends."""
    store = FaultyStore()
    store.refused = {1}
    written, waits = [], []
    wait = Calls._waiting_for_room

    def counted(*arguments: Any) -> Any:
        waits.append(threading.current_thread().name)
        return wait(*arguments)

    monkeypatch.setattr(Calls, "_waiting_for_room", counted)

    def replace(keys: np.ndarray, values: np.ndarray, error: BaseException) -> None:
        cache[2] = 5  # so that the next one finds too little room
        ask(cache, 4)
        cache[3] = 3
        written.append(3)

    with WriteBehindCache(4, store, max_pending=0, on_rejected=replace) as cache:
        cache[1] = 1
        cache[2] = 2
        cache.flush()
    assert written == [3]
    assert waits == ["slabcache-flusher"]
    assert store.rows == {2: 5, 3: 3}
