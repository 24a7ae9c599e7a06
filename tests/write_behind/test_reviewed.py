"""What a review of the write-behind cache has found, each as the program that showed it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from slabcache import WriteBehindCache
from slabcache.stores import SQLiteStore
from support.faulty_store import FaultyStore, make
from support.sqlite_file import execute


def test_a_cache_that_somebody_has_come_by_again_is_written_on() -> None:
    """A weak reference outlives the finalizer that keeps the cache for its unsaved rows."""
    store, cache = make()
    names = weakref.WeakValueDictionary(x=cache)
    cache[1] = 1
    store.gate.clear()
    del cache
    cache = names["x"]
    store.gate.set()
    cache.flush()
    cache[2] = 2
    cache.flush()
    cache.close()
    assert store.rows == {1: 1, 2: 2}


def test_a_dropped_cache_whose_rows_are_being_saved_is_no_open_one() -> None:
    """The thread that writes has the last reference then."""
    store, cache = make(flush_interval=0.0)
    store.gate.clear()
    cache[1] = 1
    store.saving.wait()
    del cache
    threading.Timer(0.05, store.gate.set).start()
    WriteBehindCache(8, store).close()
    assert store.rows == {1: 1}


def unique(path: Path) -> SQLiteStore:
    execute(
        path,
        "CREATE TABLE IF NOT EXISTS t (key BIGINT NOT NULL, value BIGINT NOT NULL UNIQUE, "
        "PRIMARY KEY (key)) WITHOUT ROWID",
    )
    return SQLiteStore(path, table="t", key="u8", value="u8", busy_timeout=0.05)


@pytest.mark.parametrize("flush_rows", [1, 1000])
def test_a_row_that_needs_a_later_deletion_is_not_given_up(tmp_path: Path, flush_rows: int) -> None:
    rejected: list[int] = []
    with WriteBehindCache(
        5000,
        unique(tmp_path / "rows.db"),
        flush_rows=flush_rows,
        on_rejected=lambda keys, *_: rejected.extend(keys.tolist()),
    ) as cache:
        cache[1] = 7
        cache.flush()
        cache[2] = 6
        cache.put_many(range(100, 130), range(100, 130))
        del cache[1]
        cache[2] = 7
        cache.flush()
        assert not rejected
        cache[3] = 7
        cache.flush()
        assert rejected == [3]
    with WriteBehindCache(10, unique(tmp_path / "rows.db")) as cache:
        assert cache.get_many([1, 2, 3])[1].tolist() == [False, True, False]


def test_a_row_that_needs_a_deletion_that_fails_for_now_is_not_given_up(tmp_path: Path) -> None:
    rejected: list[int] = []
    cache = WriteBehindCache(
        10, unique(tmp_path / "rows.db"), on_rejected=lambda keys, *_: rejected.extend(keys.tolist())
    )
    cache[1] = 7
    cache.flush()
    with closing(sqlite3.connect(tmp_path / "rows.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        del cache[1]
        cache[2] = 7
        with pytest.raises(TimeoutError):
            cache.flush(0.3)
        other.execute("COMMIT")
    cache.flush()
    assert not rejected
    assert cache[2] == 7
    cache.close()


def test_loads_that_began_late_give_up_their_places_too() -> None:
    """Those of callers whose own time began before the load did."""

    class Slow(FaultyStore):
        def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if 1 in keys:
                time.sleep(0.1)
            if 2 in keys:
                self.gate.wait()
            return super().load_many(keys)

    store = Slow(rows={key: key for key in range(9)})
    cache = WriteBehindCache(8, store, flush_interval=1000.0, loads=1, load_timeout=0.15)
    with ThreadPoolExecutor(2) as pool:
        store.gate.clear()
        first = pool.submit(cache.get, 1)
        time.sleep(0.05)
        second = pool.submit(cache.get, 2)
        with pytest.raises(TimeoutError):
            second.result()
        del first
        value = None
        while value is None:
            try:
                store.gate.set() if value else None
                value = cache.get(3)
            except TimeoutError:
                store.gate.set()
        assert value == 3
    cache.close()


def test_close_returns_after_a_load_was_given_up() -> None:
    store, cache = make(FaultyStore(rows={1: 1}), load_timeout=0.05)
    store.gate.clear()
    with pytest.raises(TimeoutError):
        cache[1]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cache.close).result()
    store.gate.set()


def test_a_grandchild_loads_what_its_parent_was_loading() -> None:
    store, cache = make(FaultyStore(rows={key: key for key in range(9)}), loads=1)
    read, write = os.pipe()
    if not (child := os.fork()):
        store.gate.clear()
        threading.Thread(target=cache.get, args=(1,), daemon=True).start()
        store.loading.wait()
        if not (grandchild := os.fork()):
            store.gate = threading.Event()
            store.gate.set()
            os.write(write, b"%d" % cache[7])
            os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 9) == b"7"
    cache.close()


@pytest.mark.parametrize(
    "options", [{"loads": 1}, {"loads": 2, "load_timeout": 30.0}, {"loads": 1, "load_timeout": 30.0}]
)
def test_a_load_may_read_the_cache_through_asyncio(options: dict[str, float]) -> None:
    class Asking(FaultyStore):
        def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if keys[0] < 10:
                assert asyncio.run(cache.aget(int(keys[0]) + 20)) == keys[0] + 20
                assert cache[int(keys[0]) + 40] == keys[0] + 40
            return super().load_many(keys)

    store = Asking(rows={key: key for key in range(60)})
    cache = WriteBehindCache(100, store, flush_interval=1000.0, **options)  # type: ignore[arg-type]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(cache.get, (1, 2, 3))) == [1, 2, 3]
    cache.close()


def test_the_back_off_of_a_store_that_is_away_lasts_while_rows_fail_by_themselves() -> None:
    store, cache = make(capacity=200, flush_interval=0.0)
    store.refused, store.refusal = set(range(50)), OSError("unavailable")
    cache.put_many(range(60), range(60))
    while cache.stats().failing < 50:
        time.sleep(0.001)
    store.failure = OSError("away")
    cache.put_many(range(100, 150), range(50))
    while cache._flusher._failures < 3:  # and it goes on rising
        time.sleep(0.001)
    store.failure, store.refused = None, set()
    cache.close()
    assert len(store.rows) == 110


def test_increments_of_rows_that_are_saved_meanwhile_are_not_lost() -> None:
    """The flusher frees the slots of rows that have left memory as soon as they are saved."""
    store = FaultyStore()
    cache = WriteBehindCache(2, store, flush_interval=0.0, max_pending=30, default=0)

    def work(number: int) -> None:
        for count in range(4000):
            cache.increment(number * 6 + count % 6)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    cache._check()
    cache.close()
    assert sum(store.rows.values()) == 8000


def test_notes_of_an_error_are_those_of_one_caller() -> None:
    error = OSError("down")
    error.add_note("of the store")
    store, cache = make()
    store.failing_loads = error
    notes = []
    for _ in range(3):
        with pytest.raises(OSError, match="down") as raised:
            cache[1]
        raised.value.add_note("of a caller")
        notes.append(len(raised.value.__notes__))
    assert notes == [2, 2, 2]
    cache.close()
