"""Loading what is not in memory: once, together, and never over a newer write."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from slabcache import ClosedError, WriteBehindCache
from support.faulty_store import FaultyStore, make


def test_the_missing_keys_of_a_batch_are_loaded_at_once() -> None:
    store, cache = make(FaultyStore(rows={1: 10, 2: 20}))
    values, found = cache.get_many([1, 2, 1, 3])
    assert values.tolist() == [10, 20, 10, 0]
    assert found.tolist() == [True, True, True, False]
    assert store.loads == [[1, 2, 3]]
    assert cache.stats()[:2] == (1, 3) or cache.stats()[:2] == (0, 4)
    cache.close()


def test_concurrent_misses_of_one_key_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.gate.clear()
    missed = threading.Semaphore(0)
    submit = cache._loader.submit

    def counted(*arguments: Any) -> Any:
        places = submit(*arguments)
        missed.release()
        return places

    monkeypatch.setattr(cache._loader, "submit", counted)
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(cache.get, 1) for _ in range(8)]
        for _ in range(8):
            missed.acquire()  # all have missed it while the load is under way
        store.gate.set()
        assert [result.result() for result in results] == [10] * 8
    assert store.loads == [[1]]
    cache.close()


def test_concurrent_misses_of_several_keys_are_loaded_together() -> None:
    store, cache = make(FaultyStore(rows={key: key * 10 for key in range(20)}), capacity=32)
    store.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        results = [pool.submit(cache.get, key) for key in range(20)]
        store.loading.wait()
        while len(cache._loader._flights.places) < 20:
            pass
        store.gate.set()
        assert [result.result() for result in results] == [key * 10 for key in range(20)]
    assert sorted(key for load in store.loads for key in load) == list(range(20))
    assert len(store.loads) <= 4
    cache.close()


def test_a_write_during_a_load_wins() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(cache.get, 1)
        store.loading.wait()
        cache[1] = 11
        store.gate.set()
        assert result.result() == 11
    assert cache[1] == 11
    cache.close()


def test_a_write_during_a_load_wins_though_it_has_left_memory() -> None:
    store, cache = make(FaultyStore(rows={1: 10}), capacity=1, max_pending=1)

    def write_save_and_evict() -> None:
        """The load has read the old row by now."""
        cache[1] = 11
        cache.flush()
        cache[2] = 2
        cache.flush()

    store.after_load = write_save_and_evict
    assert cache[1] == 11
    assert store.loads == [[1], [1]]
    cache.close()


def test_a_failed_load_raises_to_all_who_waited_and_is_not_cached() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.failing_loads = OSError("down")
    store.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(cache.get, 1) for _ in range(3)]
        store.loading.wait()
        store.gate.set()
        for result in results:
            with pytest.raises(OSError, match="down"):
                result.result()
    store.failing_loads = StopIteration("not an answer")
    with pytest.raises((StopIteration, RuntimeError)):
        cache.get(1)
    store.failing_loads = None
    assert cache[1] == 10
    cache.close()


def test_a_store_that_answers_with_the_wrong_shape_is_named() -> None:
    store, cache = make()
    for answer in ((), [np.zeros(1), np.zeros(1, bool)], (1, 2, 3), asyncio.sleep(0)):
        store.answer = answer
        with pytest.raises(RuntimeError, match="load_many must return values and bools, not|coroutines"):
            cache.get(1)
    store.answer = np.zeros(5, "i8"), np.zeros(5, bool)
    with pytest.raises(RuntimeError, match="FaultyStore.load_many"):
        cache[1]
    store.answer = np.zeros(1, "f8") + 0.5, np.ones(1, bool)
    with pytest.raises(RuntimeError, match="FaultyStore.load_many has returned other values"):
        cache[1]
    store.failing_loads = KeyError("a column")
    with pytest.raises(RuntimeError, match="raised KeyError"):
        cache[1]
    cache.close()


def test_a_store_of_coroutines_has_saved_nothing() -> None:
    async def save_many(keys: np.ndarray, values: np.ndarray) -> None:
        raise AssertionError("nobody runs it")

    store, cache = make()
    save, cache.store.save_many = store.save_many, save_many
    cache[1] = 1
    with pytest.raises(TimeoutError):
        cache.flush(0.0)
    while not cache.stats().flush_errors:
        pass
    assert "coroutines" in str(cache.stats().last_error)
    assert not store.rows
    cache.store.save_many = save
    cache.close()
    assert store.rows == {1: 1}


def test_a_read_that_finds_no_room_is_not_cached() -> None:
    store, cache = make(FaultyStore(rows={9: 90}), capacity=2, max_pending=0)
    store.failure = OSError("down")
    cache.put_many([1, 2], [1, 2])
    assert cache[9] == 90
    assert len(cache) == 2
    assert 9 in cache
    store.failure = None
    cache.close()


def test_what_rows_of_a_batch_make_forgotten_is_not_held_against_the_others() -> None:
    """Rows that were loaded stay known until the batch has run, whatever it evicts. With so many keys, some
    share a place in what is forgotten."""
    _, cache = make(capacity=1, max_pending=5000, default=0)
    keys = np.arange(2000)
    for _ in range(3):
        cache.increment_many(keys)
        cache.flush()
    assert cache.get_many(keys)[0].tolist() == [3] * len(keys)
    cache.close()


def test_each_key_is_loaded_once_whoever_asks_for_it() -> None:
    """Also by one that misses it just before a load of it ends, and asks for it just after."""
    keys, rounds = 40, 25
    for _ in range(rounds):
        store, cache = make(FaultyStore(rows={key: key * 10 for key in range(keys)}), capacity=64)
        start = threading.Barrier(4)
        results: list[list[int]] = []

        def read(cache: WriteBehindCache, start: threading.Barrier, results: list[list[int]]) -> None:
            start.wait()
            results.append([cache[key] for key in range(keys)])

        readers = [threading.Thread(target=read, args=(cache, start, results)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert results == [[key * 10 for key in range(keys)]] * 4
        assert sorted(key for load in store.loads for key in load) == list(range(keys))
        cache.close()


@pytest.mark.parametrize("batch", [1, 500])
def test_a_read_ends_though_its_row_is_written_during_each_load(batch: int) -> None:
    """What a load has found was so while the call ran. It must not stay, though."""
    rows = dict.fromkeys(range(batch), 10)
    store, cache = make(FaultyStore(rows=rows), capacity=1, max_pending=1000)
    number = 10

    def write_save_and_evict() -> None:
        nonlocal number
        number += 1
        assert number < 20
        cache.put_many(range(batch), np.full(batch, number))
        cache.put_many([5000, 5001], [0, 0])
        cache.flush()
        store.after_load = write_save_and_evict

    store.after_load = write_save_and_evict
    assert (cache.get_many(range(batch))[0] == number - 1).all()
    assert len(store.loads) == 3
    store.after_load = None
    assert cache[0] == number
    assert cache.get(7000) is None
    cache.close()


def test_a_change_of_an_absent_row_ends_though_it_is_written_and_deleted_during_each_load() -> None:
    store, cache = make(capacity=1, max_pending=1)

    def write_delete_and_save() -> None:
        assert len(store.loads) < 10
        cache[1] = 11
        cache.flush()
        del cache[1]
        cache.flush()
        store.after_load = write_delete_and_save

    store.after_load = write_delete_and_save
    with pytest.raises(KeyError):
        cache.increment(1)
    assert cache.pop(1, "none") == "none"
    store.after_load = None
    cache.close()


def test_what_a_change_has_loaded_stays_in_memory() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    with pytest.raises(OverflowError):
        cache.increment(1, by=2**63 - 1)
    assert cache[1] == 10
    assert store.loads == [[1]]
    cache.close()


def test_what_only_looks_keeps_nothing_and_a_read_that_joins_it_does() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        look = pool.submit(cache.peek, 1)
        store.loading.wait()
        read = pool.submit(cache.get, 1)
        while not cache._loader._flights.places[b"\x01" + bytes(7)].kept:
            pass
        store.gate.set()
        assert (look.result(), read.result()) == (10, 10)
    assert len(cache) == 1
    assert cache.peek(1) == 10
    assert store.loads == [[1]]
    cache.close()


def test_setdefault_of_an_absent_key_is_one_miss() -> None:
    _, cache = make()
    assert cache.setdefault(1, 5) == 5
    assert cache.setdefault(1, 6) == 5
    assert (cache.stats().misses, cache.stats().hits) == (1, 1)
    cache.close()


def test_changes_of_absent_keys_need_no_room() -> None:
    store, cache = make(capacity=1, max_pending=0)
    store.failure = OSError("down")
    cache[1] = 1
    with pytest.raises(KeyError):
        cache.increment(2)
    with pytest.raises(KeyError):
        cache.pop(2)
    assert cache.delete_many([2, 3]).tolist() == [False, False]
    assert cache.increment_many([2, 1])[1].tolist() == [False, True]
    store.failure = None
    cache.close()


def test_a_change_of_more_keys_than_have_rows_waits_for_room() -> None:
    store, cache = make(FaultyStore(rows={1: 1, 2: 2}), capacity=4, max_pending=1)
    store.gate.clear()
    cache.put_many(range(10, 14), range(4))
    with ThreadPoolExecutor(1) as pool:
        store.gate.set()
        store.failure = OSError("down")
        deleted = pool.submit(cache.delete_many, range(1, 9))
        while not cache._flusher._waiters:
            pass
        store.failure = None
        assert deleted.result().sum() == 2
    with pytest.raises(ValueError, match="6 different keys"):
        cache.put_many(range(6), range(6))
    cache.close()
    assert store.rows == {10: 0, 11: 1, 12: 2, 13: 3}


def test_what_was_invalidated_is_loaded_anew() -> None:
    """Also where a load is under way that may have read what was there before."""
    store, cache = make(FaultyStore(rows={1: 10, 2: 20}), capacity=8)
    assert cache.get_many([1, 2])[0].tolist() == [10, 20]
    cache[3] = 30
    store.rows[1] = 11
    assert cache.invalidate_many([1, 3, 1, 9]).tolist() == [True, False, True, True]
    assert list(cache) == [2, 3]
    store.gate.clear()
    store.loading.clear()
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(cache.get, 1)
        store.loading.wait()
        store.rows[1] = 12
        scanned = [keys.tolist() for keys in cache.scan_keys(1)]
        assert cache.invalidate_many([1]).tolist() == [True]
        after = pool.submit(cache.get, 1)
        while len(cache._loader._flights.places) < 1:
            pass
        store.gate.set()
        assert before.result() in (11, 12)
        assert scanned == [[1], [2], [3]]  # the first was on its way
        assert (after.result(), cache.get(1)) == (12, 12)
    cache.close()
    with pytest.raises(ClosedError):
        cache.invalidate_many([1])


def test_nothing_that_was_loaded_before_outlasts_the_invalidation_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also what has landed, was evicted, and is with a call that has not used it yet."""
    store, cache = make(FaultyStore(rows={1: 10, 2: 20}), capacity=1, max_pending=0)
    landed, go = threading.Event(), threading.Event()
    wait = cache._loader.wait

    def slow(flights: Any) -> None:
        wait(flights)
        if threading.current_thread().name == "slow" and not landed.is_set():
            landed.set()
            go.wait()

    monkeypatch.setattr(cache._loader, "wait", slow)
    reader = threading.Thread(target=cache.get, args=(1,), name="slow")
    reader.start()
    landed.wait()
    assert cache.get(2) == 20  # evicts row 1
    store.rows[1] = 11
    assert cache.invalidate_all() == 1
    go.set()
    reader.join()
    assert cache.get(1) == 11
    cache.close()


def test_the_invalidation_of_all_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cache = make(FaultyStore(rows={key: key for key in range(100)}), capacity=8)
    cache.get_many(range(8))
    scan_keys = cache.scan_keys

    def busy(rows: int = 4096) -> Any:
        for keys in scan_keys(rows):
            yield keys
            cache.get_many(range(50, 90))  # others evict meanwhile
            cache.reset_stats()

    monkeypatch.setattr(cache, "scan_keys", busy)
    assert cache.invalidate_all() == 8
    cache.close()


def test_a_load_that_closes_the_cache_while_another_thread_does() -> None:
    """The other one waits for the load: the load may not wait for it."""
    closing = threading.Event()
    raised: list[BaseException] = []

    def close_too() -> None:
        closing.wait()
        while not cache.closed:  # the other one has begun
            time.sleep(0.001)
        try:
            cache.close()
        except RuntimeError as error:
            raised.append(error)

    store = FaultyStore(rows={1: 1})
    store.after_load = close_too
    cache = WriteBehindCache(4, store)
    with ThreadPoolExecutor(2) as pool:
        load = pool.submit(cache.get, 1)
        store.loading.wait()
        close = pool.submit(cache.close, 10)  # not for ever, where the load waits for it
        closing.set()
        close.result()
        with pytest.raises(ClosedError):
            load.result()
    assert raised
    assert "waits for the load that this one carries out" in str(raised[0])
    assert store.closed == 1


def test_a_store_that_closes_its_cache() -> None:
    class Closing(FaultyStore):
        def close(self) -> None:
            cache.close()
            super().close()

    store = Closing()
    cache = WriteBehindCache(4, store)
    cache[1] = 1
    cache.close()
    cache.close()
    assert (store.closed, store.rows) == (1, {1: 1})
