"""The rules of a cache before a store, one example each."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
import sys
import threading
import time
from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from slabcache import (
    BackpressureError,
    ClosedError,
    RowsRejected,
    SlabCache,
    SumOverflowError,
    WriteBehindCache,
)
from support.faulty_store import FaultyStore, make

STATES = {
    "key": [("user", "u8"), ("channel", "u8")],
    "value": [("seen", "u8"), ("mentions", "u4"), ("pinned", "u8")],
}


# ---- reading -----------------------------------------------------------------------------------------


def test_records_are_read_through_and_written_behind() -> None:
    store = FaultyStore(**STATES, rows={(1, 2): (10, 0, 0)})
    _, cache = make(store, default=(0, 0, 0))
    assert cache[1, 2].seen == 10
    assert cache.increment((1, 2), "mentions") == 1
    assert cache.increment((5, 5), "mentions", by=3) == 3
    cache.update_fields((7, 7), seen=9)
    assert cache[7, 7] == (9, 0, 0)
    cache.flush()
    assert store.rows == {(1, 2): (10, 1, 0), (5, 5): (0, 3, 0), (7, 7): (9, 0, 0)}
    cache.close()


def test_a_default_is_created_clean_and_is_found() -> None:
    store, cache = make(default=7)
    assert cache.get(1, 99) == 7
    assert 2 in cache
    assert cache.contains_many([3]).tolist() == [True]
    assert cache.stats().dirty == 0
    assert len(cache) == 1
    assert cache.pop(4) == 7
    cache.close()
    assert store.rows == {}


def test_peek_and_in_ask_the_store_and_keep_nothing() -> None:
    _, cache = make(FaultyStore(rows={1: 10}))
    assert cache.peek(1) == 10
    assert 1 in cache
    assert cache.contains_many([1, 2]).tolist() == [True, False]
    assert len(cache) == 0
    assert cache.stats()[:2] == (0, 0)
    cache.close()


def test_batches_that_run_without_the_gil() -> None:
    rows = {key: key for key in range(0, 3000, 2)}
    store, cache = make(FaultyStore(rows=rows), capacity=1000, max_pending=5000, default=0)
    keys = np.arange(3000)
    assert cache.get_many(keys)[0].tolist() == [key if key % 2 == 0 else 0 for key in range(3000)]
    assert cache.increment_many(keys, by=1)[0].tolist() == [
        key + 1 if key % 2 == 0 else 1 for key in range(3000)
    ]
    assert cache.delete_many(keys[:600]).all()
    cache.put_many(keys[300:900], keys[300:900] * 10)
    cache._check()
    cache.close()
    expected = {key: key + 1 if key % 2 == 0 else 1 for key in range(600, 3000)}
    assert store.rows == expected | {key: key * 10 for key in range(300, 900)}


def test_out_is_filled_and_returned() -> None:
    _, cache = make(FaultyStore(rows={1: 10}))
    out = np.zeros(2, "i8")
    values, _ = cache.get_many(np.array([1, 2]), out=out)
    assert values is out
    assert out.tolist() == [10, 0]
    single, found = cache.get_many(np.array(1, "u8"))
    assert single.shape == found.shape == ()
    cache.close()


# ---- writing behind ------------------------------------------------------------------------------------


def test_many_writes_of_a_key_are_one_row() -> None:
    store, cache = make()
    for number in range(100):
        cache[1] = number
    cache.flush()
    assert store.saves == [{1: 99}]
    cache.close()


def test_rows_go_in_batches_oldest_first() -> None:
    store, cache = make(capacity=10, flush_rows=3)
    for key in range(7):
        cache[key] = key
    cache.flush()
    assert [list(save) for save in store.saves] == [[0, 1, 2], [3, 4, 5], [6]]
    cache.close()


def test_what_is_evicted_is_written_soon_and_readable_until_then() -> None:
    store, cache = make(capacity=2)
    store.gate.clear()
    cache.put_many([1, 2, 3], [10, 20, 30])
    store.saving.wait()
    assert cache.stats().pending >= 0
    assert cache[1] == 10
    store.gate.set()
    cache.close()
    assert store.rows == {1: 10, 2: 20, 3: 30}
    assert store.loads == []


def test_an_entry_in_use_is_written_though_evicted_ones_keep_coming() -> None:
    """As where writers outrun the store: what is evicted does not push ahead of what is older."""

    class Outrun(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            super().save_many(keys, values)
            if len(self.saves) < 50:
                evict(len(keys))

    store = Outrun()
    cache = WriteBehindCache(4, store, flush_interval=1e-9, flush_rows=2, max_pending=20)
    numbers = itertools.count(1)

    def evict(count: int) -> None:
        for number in itertools.islice(numbers, count):
            cache[number] = number
            cache.touch(0)

    store.gate.clear()
    cache[1000] = 0
    store.saving.wait()
    cache[0] = 0
    evict(10)
    store.gate.set()
    cache.close()
    assert len(store.saves) > 50
    assert 0 in store.saves[1]


def test_an_entry_is_written_when_it_is_due() -> None:
    store, cache = make(flush_interval=0.01)
    cache[1] = 10
    store.saving.wait()
    cache.flush()
    assert store.rows == {1: 10}
    cache.close()


def test_rows_that_are_almost_due_go_with_those_that_are() -> None:
    """So a steady stream of writes is saved in some batches for each interval, not row by row."""
    interval = 0.4
    store, cache = make(capacity=10_000, flush_interval=interval)
    started, writes = time.monotonic(), 0
    while time.monotonic() < started + 3 * interval:
        cache[writes] = writes
        writes += 1
        time.sleep(0.001)
    saves = len(store.saves)
    parts = (time.monotonic() - started) / (interval / 16)
    assert 0 < saves <= parts + 2
    cache.close()
    assert store.rows == {number: number for number in range(writes)}


def test_a_deletion_is_written_behind_and_reads_as_absent_meanwhile() -> None:
    store, cache = make(FaultyStore(rows={1: 10, 2: 20}))
    assert cache.pop(1) == 10
    del cache[2]
    with pytest.raises(KeyError):
        del cache[2]
    with pytest.raises(KeyError):
        cache[1]
    assert store.rows == {1: 10, 2: 20}
    cache.flush()
    assert store.rows == {}
    cache.close()


def test_a_failing_store_keeps_rows_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    store, cache = make(FaultyStore(rows={5: 50}))
    store.failure = OSError("down")
    cache[1] = 10
    with caplog.at_level(logging.WARNING, "slabcache"):
        with pytest.raises(TimeoutError, match="1 rows are not in the store"):
            cache.flush(0.01)
        while cache.stats().flush_errors < 2:
            time.sleep(0.001)
        assert cache[5] == 50
        assert cache[1] == 10
        stats = cache.stats()
        assert stats.dirty == 1
        assert stats.flush_errors >= 2
        assert stats.last_error is store.failure
        assert stats.oldest_dirty_age > 0
        store.failure = None
        cache.flush()
    assert store.rows == {5: 50, 1: 10}
    assert [record.message.split(";")[0].split(",")[0] for record in caplog.records] == [
        "FaultyStore fails",
        "FaultyStore takes all rows again",
    ]
    cache.close()


def test_a_refused_row_is_found_and_does_not_hold_up_others() -> None:
    rejected = []
    refusal = RowsRejected("no")
    store, cache = make(
        capacity=100,
        on_rejected=lambda keys, values, error: rejected.append((keys.tolist(), values.tolist(), error)),
    )
    store.refused = {13, 77}
    store.refusal = refusal
    cache.put_many(range(100), range(100))
    cache.flush()
    assert rejected == [([13], [13], refusal), ([77], [77], refusal)]
    assert store.rows == {key: key for key in range(100) if key not in store.refused}
    assert cache.stats().rejected_rows == 2
    assert 13 not in cache
    cache._check()
    cache.close()


def test_a_refused_row_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.refused = {1}
    store.refusal = RowsRejected("never")
    del cache[1]
    with caplog.at_level(logging.ERROR, "slabcache"):
        cache.flush()
    assert "refused the deletion for good: key 1" in caplog.text
    assert cache[1] == 10
    assert cache.stats().rejected_rows == 1
    cache.close()


def test_a_writer_waits_for_room_and_goes_on() -> None:
    store, cache = make(capacity=2, max_pending=1)
    store.gate.clear()
    cache.put_many([1, 2, 3], [1, 2, 3])
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(cache.__setitem__, 4, 4)
        store.saving.wait()
        assert not writer.done()
        store.gate.set()
        writer.result()
    assert cache[4] == 4
    cache.close()
    assert store.rows == {key: key for key in (1, 2, 3, 4)}


def test_a_writer_that_waits_in_vain_changes_nothing() -> None:
    store, cache = make(FaultyStore(rows={9: 90}), capacity=2, max_pending=1, backpressure_timeout=0.02)
    store.failure = OSError("down")
    cache.put_many([1, 2, 3], [1, 2, 3])
    for write in (
        lambda: cache.__setitem__(4, 4),
        lambda: cache.increment(9),
        lambda: cache.increment_many([9, 9]),
        lambda: cache.delete_many([9]),
        lambda: cache.put_many([1, 4], [10, 40]),
        lambda: cache.setdefault(8, 80),
        lambda: cache.pop(9),
    ):
        with pytest.raises(BackpressureError, match="nothing was changed"):
            write()
    assert cache.get_many([1, 2, 3, 9])[0].tolist() == [1, 2, 3, 90]
    cache[1] = 11  # it is unsaved already
    assert not cache._flusher._waiters, "nobody waits any more"
    with pytest.raises(ValueError, match="4 different keys"):
        cache.put_many(range(4), range(4))
    cache.put_many([1, 1, 1, 1], [1, 2, 3, 4])
    store.failure = None
    cache.close()
    assert store.rows == {9: 90, 1: 4, 2: 2, 3: 3}


def test_an_overflow_changes_nothing() -> None:
    store, cache = make(FaultyStore(value="u1", rows={1: 250, 2: 0}))
    for _ in range(2):  # of a row that has to be loaded, and of one in memory
        with pytest.raises(OverflowError, match="^value: the sum with 6 is out of range$") as scalar:
            cache.increment(1, by=6)
        assert type(scalar.value) is OverflowError
    assert cache.stats().dirty == 0
    with pytest.raises(SumOverflowError, match="row 0 is out of range; nothing was changed"):
        cache.increment_many([1], by=6)
    with pytest.raises(SumOverflowError, match="row 1") as told:
        cache.increment_many([2, 1], by=[1, 6])
    again = pickle.loads(pickle.dumps(told.value))
    assert (again.row, str(again)) == (1, str(told.value))
    cache.close()
    assert store.rows == {1: 250, 2: 1}


def test_rows_that_find_no_room_as_their_keys_were_changed_meanwhile_are_told() -> None:
    """The room is counted from one state of the array, and the rows are written from another."""
    _, cache = make(capacity=8, max_pending=2)
    keys = np.zeros(4_000, "u8")
    values = np.zeros(4_000, "i8")
    stopping = threading.Event()

    def change() -> None:
        numbers = np.arange(len(keys), dtype="u8")
        while not stopping.is_set():
            keys[:] = numbers
            keys[:] = 0

    with ThreadPoolExecutor(1) as pool:
        pool.submit(change)
        message = ""
        try:
            while "found no room" not in message:
                try:
                    cache.put_many(keys, values)
                except (ValueError, RuntimeError) as error:  # ValueError: changed before they were counted
                    message = str(error)
        finally:
            stopping.set()
    cache.close()


def test_a_flush_waits_for_a_batch_whose_row_was_written_again() -> None:
    """What was written before the flush is in the batch; what the row is now came after it."""
    store, cache = make(flush_interval=0.0)
    store.gate.clear()
    cache[1] = 1
    store.saving.wait()
    with ThreadPoolExecutor(1) as pool:
        flush = pool.submit(cache.flush)
        while not cache._flusher._waiters:
            time.sleep(0.001)
        time.sleep(0.05)  # several ticks of the clock that writes are stamped with
        cache[1] = 2
        (waiter,) = cache._flusher._waiters
        assert cache._unsaved()[3] > waiter.need.until
        cache._flusher._tell(cache)
        with pytest.raises(TimeoutError):
            flush.result(0.1)
        store.gate.set()
        flush.result()
    cache.close()
    assert store.rows == {1: 2}


def test_it_is_a_mapping_of_what_is_in_memory_and_cannot_be_copied() -> None:
    _, cache = make(FaultyStore(rows={9: 90}))
    cache.update({1: 10, 2: 20})
    assert dict(cache.items()) == {1: 10, 2: 20}
    assert list(reversed(cache)) == [2, 1]
    assert cache == {1: 10, 2: 20}
    assert not hasattr(cache, "resize")
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="WriteBehindCache"):
            copying(cache)
    with pytest.raises(TypeError, match=r"invalidate_all.*delete_many"):
        cache.clear()
    assert len(cache) == 2
    cache.close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"capacity": 0}, ValueError),
        ({"flush_interval": -1}, ValueError),
        ({"flush_interval": "1"}, TypeError),
        ({"flush_rows": 0}, ValueError),
        ({"max_pending": -1}, ValueError),
        ({"max_pending": 1.5}, TypeError),
        ({"backpressure_timeout": float("nan")}, ValueError),
        ({"default": "x"}, TypeError),
        ({"on_rejected": 5}, TypeError),
        ({"load_timeout": -1}, ValueError),
        ({"load_timeout": "1"}, TypeError),
        ({"loads": 0}, ValueError),
        ({"loads": 1.5}, TypeError),
        ({"store": object()}, TypeError),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"capacity": 8, "store": FaultyStore(), **options}
    with pytest.raises(error, match=next(iter(options)).replace("default", "value")):
        WriteBehindCache(**arguments)


# ---- threads, processes, the end -------------------------------------------------------------------------


class Zeros(FaultyStore):
    """It has all rows, and keeps none."""

    def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(keys), self.value_dtype), np.ones(len(keys), bool)

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        return


@pytest.mark.parametrize("number", range(10))  # as it shows itself now and then, and without a GIL alone
def test_each_look_up_is_counted_once(number: int) -> None:
    """Also of a row that the flusher frees in the midst of it, as it is evicted and saved."""
    options: dict[str, Any] = {"capacity": 1, "max_pending": 1, "flush_interval": 0, "flush_rows": 1}
    _, cache = make(Zeros("u8", ("u1", 4000)), **options)
    value, rounds = np.zeros(4000, "u1"), 1000

    def look_up(_: int) -> None:
        for key in range(rounds):
            cache.get(key % 3)

    def write() -> None:
        for key in range(rounds):
            cache[key % 3] = value

    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        list(pool.map(look_up, range(2)))
        writing.result()
    assert cache.stats().hits + cache.stats().misses == 2 * rounds
    cache.close()


def test_many_threads_lose_nothing() -> None:
    """Eviction, load, write, deletion and flush of the same keys meet all the time."""
    threads, keys, rounds = 8, 12, 400
    store, cache = make(capacity=3, max_pending=2, flush_interval=0.0, flush_rows=2, default=0)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            rng = np.random.default_rng(number)
            for key in rng.integers(keys, size=rounds).tolist():
                if key % 3 == 0:
                    cache.increment_many([key, (key + 3) % keys], by=1)
                else:
                    cache.increment(key)
                cache.get_many(rng.integers(keys, size=4))
                cache[1000 + number] = key
                cache.pop(1000 + number)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    expected = [0] * keys
    for number in range(threads):
        rng = np.random.default_rng(number)
        for key in rng.integers(keys, size=rounds).tolist():
            expected[key] += 1
            if key % 3 == 0:
                expected[(key + 3) % keys] += 1
    values, _ = cache.get_many(range(keys))
    assert values.tolist() == expected
    cache._check()
    cache.close()
    assert store.rows == dict(enumerate(expected))


def test_entries_that_reads_evict_are_written_soon() -> None:
    store, cache = make(FaultyStore(rows={key: key for key in range(10, 20)}), capacity=2)
    cache.put_many([1, 2], [1, 2])
    cache.get_many(range(10, 13))
    store.saving.wait()
    cache.close()
    assert store.rows[1] == 1


def test_on_rejected_may_use_the_cache_but_not_wait_for_its_own_thread() -> None:
    answers: list[Any] = []

    def mend(keys: Any, values: Any, error: BaseException) -> None:
        cache[1] = 0
        for wait in (cache.flush, cache.close):
            try:
                wait()
            except RuntimeError as refused:
                answers.append(str(refused))
        raise SystemExit

    store, cache = make(on_rejected=mend)
    store.refused = {13}
    cache[13] = 13
    cache.flush()
    cache.flush()
    assert len(answers) == 2
    assert store.rows == {1: 0}
    cache.close()


def test_foreign_keys_and_missing_are_as_in_a_plain_cache() -> None:
    class Lengths(WriteBehindCache):
        def __missing__(self, key: Any) -> Any:
            return -key

    store = FaultyStore(rows={1: 10})
    cache = Lengths(4, store)
    assert (cache[1], cache[7], cache.get(7), len(cache)) == (10, -7, None, 1)
    assert 0 <= sys.getsizeof(cache) - cache.nbytes < 1000
    assert cache.keys() & {1, "a", 2**70} == {1}
    assert ChainMap(cache, {"a": 3})["a"] == 3
    with pytest.raises(TypeError):
        cache.get("a")
    keys = cache.keys()
    cache.close()
    with pytest.raises(ClosedError):
        assert 1 in keys


def test_what_a_plain_cache_does_it_does_too() -> None:
    """Order of recency and evictions, with an empty store."""
    plain = SlabCache(3, "u8", "i8")
    _, cache = make(capacity=3, max_pending=100)
    rng = np.random.default_rng(5)
    for key in rng.integers(8, size=300).tolist():
        plain[key] = key
        cache[key] = key
        assert list(cache.items()) == list(plain.items())
    keys = rng.integers(8, size=50).astype("u8")
    theirs = plain.put_many(keys, keys.astype("i8"), return_evicted=True)
    ours = cache.put_many(keys, keys.astype("i8"), return_evicted=True)
    assert [column.tolist() for column in ours] == [column.tolist() for column in theirs]
    assert list(cache) == list(plain)
    cache.close()


def test_flush_ends_though_the_store_fails_now_and_then_and_writes_go_on() -> None:
    """What is written after the call is none of its business, whatever has failed meanwhile."""

    class Flaky(FaultyStore):
        calls = 0
        sound = False

        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            time.sleep(0.01)
            self.calls += 1
            if self.calls % 2 and not self.sound:
                raise ConnectionError
            super().save_many(keys, values)

    store = Flaky()
    cache = WriteBehindCache(400, store, flush_interval=0.2, flush_rows=50)
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            cache[number * 7919 % 2000] = number
            if number % 50 == 0:
                time.sleep(0.004)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            cache.flush(30)
    finally:
        stop.set()
        writer.join()
        store.sound = True
        cache.close()


@pytest.mark.parametrize("dtype", ["u1", "i1", [("n", "u1")]])
def test_values_of_one_byte(dtype: Any) -> None:
    """The interpreter shares its strings of one byte: none of them is written to."""
    store = FaultyStore("u8", dtype, rows={1: 65 if isinstance(dtype, str) else (65,)})
    field = None if isinstance(dtype, str) else "n"
    shared = [bytes([number]) for number in range(256)]
    with WriteBehindCache(4, store) as cache:
        assert cache.increment(1, field, 3) == 68
        assert cache.increment(1, field, 3) == 71
        assert shared == [number.to_bytes(1, "big") for number in range(256)]
        assert cache.pop(1) in (71, (71,))
    assert not store.rows
