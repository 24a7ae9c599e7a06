"""Rows that the store does not take, each by itself, for whatever reason: they are kept and tried again."""

from __future__ import annotations

import itertools
import json
import logging
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slabcache import RowsRejected, WriteBehindCache
from slabcache.behind import flusher
from slabcache.stores import SQLiteStore
from support.faulty_store import FaultyStore, make
from support.sqlite_file import execute

ERRORS = [
    RuntimeError("one row"),
    sqlite3.IntegrityError("one row"),
    TypeError("one row"),
    ValueError("one row"),
    json.JSONDecodeError("one row", "", 0),
]


def wait_for(cache: WriteBehindCache, failing: int) -> None:
    """Until all is saved but so many rows."""
    while not (cache.stats().failing == cache.stats().dirty == failing):
        time.sleep(0.001)
        cache._check()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_row_that_fails_by_itself_holds_up_no_other(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rejected: list[Any] = []
    store, cache = make(
        capacity=100, flush_interval=0.0, on_rejected=lambda *row: rejected.append(row), default=0
    )
    store.refused, store.refusal = {13, 77}, error
    with caplog.at_level(logging.WARNING, "slabcache"):
        cache.put_many(range(60), range(60))
        wait_for(cache, 1)
        cache[77] = 77
        wait_for(cache, 2)
    assert store.rows == {key: key for key in range(60) if key != 13}
    assert (cache[13], cache[77]) == (13, 77)
    stats = cache.stats()
    assert not rejected
    assert (stats.rejected_rows, stats.last_error) == (0, error)
    assert stats.oldest_dirty_age > 0
    assert stats.flush_errors > 0
    assert caplog.text.count("fails for single rows") == 1
    with pytest.raises(TimeoutError, match="2 rows are not in the store yet") as raised:
        cache.flush(0.01)
    assert raised.value.__cause__ is error
    cache.increment(13)  # a failing row is written on like any other
    store.refused = set()
    cache.flush()
    assert store.rows == {**{key: key for key in range(60)}, 13: 14, 77: 77}
    cache.close()


def test_one_row_in_ten_holds_up_no_other() -> None:
    store, cache = make(capacity=3000, flush_interval=0.0, flush_rows=500)
    store.refused, store.refusal = set(range(0, 2260, 10)), OSError("unavailable")
    cache.put_many(range(2260), range(2260))
    wait_for(cache, 226)
    assert store.rows == {key: key for key in range(2260) if key % 10}
    store.refused = set()
    cache.close()
    assert len(store.rows) == 2260


def test_failing_rows_are_evicted_deleted_and_written_like_others() -> None:
    store, cache = make(capacity=4, max_pending=20, flush_interval=0.0)
    store.refused, store.refusal = set(range(100, 110)), OSError("unavailable")
    cache.put_many(range(100, 110), range(10))
    cache.put_many(range(10), range(10))
    wait_for(cache, 10)
    assert cache.stats().pending >= 6
    assert cache[100] == 0
    del cache[101]
    assert 101 not in cache
    cache[102] = 20
    cache._check()
    assert cache.stats().failing == 10
    store.refused = set()
    cache.close()
    expected = {100 + number: number for number in range(10)} | {102: 20} | {key: key for key in range(10)}
    del expected[101]
    assert store.rows == expected


def test_each_failing_row_is_tried_again_after_a_pause_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "FIRST_DELAY", 0.0001)
    store, cache = make(flush_interval=0.0)
    store.refused, store.refusal = {1}, OSError("unavailable")
    cache.put_many([1, 2], [1, 2])
    pauses: list[float] = []
    while len(pauses) < 6:
        for aside in cache._flusher._aside.copy().values():
            if aside.pause not in pauses:
                pauses.append(aside.pause)
    assert [later / earlier for earlier, later in itertools.pairwise(pauses)] >= [2.0] * 5
    cache[3] = 3  # and does not wait for it
    while 3 not in store.rows:
        time.sleep(0.001)
    store.refused = set()
    cache.close()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_outage_gives_up_no_row_whatever_it_looks_like(error: Exception) -> None:
    store, cache = make(capacity=5000, flush_rows=1000)
    store.failure = error
    cache.put_many(range(5000), range(5000))
    with pytest.raises(TimeoutError, match="5000 rows"):
        cache.flush(0.0)
    while not cache.stats().flush_errors:
        time.sleep(0.001)
    stats = cache.stats()
    assert (stats.dirty, stats.failing, stats.rejected_rows) == (5000, 0, 0)
    assert stats.flush_errors > 0
    store.failure = None
    cache.close()
    assert store.rows == {key: key for key in range(5000)}


def test_deletions_that_fail_hold_up_no_saves() -> None:
    class Undeletable(FaultyStore):
        def delete_many(self, keys: np.ndarray) -> None:
            if not self.gate.is_set():
                raise PermissionError("no deletions")
            super().delete_many(keys)

        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            open_again = not self.gate.is_set()
            self.gate.set()
            super().save_many(keys, values)
            if open_again:
                self.gate.clear()

    store, cache = make(Undeletable(rows={1: 1, 2: 2}), flush_interval=0.0)
    assert cache.get_many([1, 2])[1].all()
    store.gate.clear()
    cache.delete_many([1, 2])
    cache[3] = 3
    wait_for(cache, 2)
    assert store.rows == {1: 1, 2: 2, 3: 3}
    store.gate.set()
    cache.close()
    assert store.rows == {3: 3}


def test_deletions_reach_the_store_before_saves(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    execute(
        path,
        "CREATE TABLE t (key INTEGER NOT NULL PRIMARY KEY, value INTEGER NOT NULL UNIQUE) WITHOUT ROWID",
    )

    def store() -> SQLiteStore:
        return SQLiteStore(path, table="t", key="i8", value="i8")

    with WriteBehindCache(10, store()) as cache:
        cache[1] = 7
        cache.flush()
        del cache[1]
        cache[2] = 7
    with WriteBehindCache(10, store()) as cache:
        assert cache.get_many([1, 2])[1].tolist() == [False, True]


def test_progress_of_a_part_resets_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fifth of the calls fail, and a third of the rows is refused."""
    seen: list[int] = []
    delay = flusher._delay

    def recorded(failures: int) -> float:
        seen.append(failures)
        return delay(0) / 50

    monkeypatch.setattr(flusher, "_delay", recorded)
    monkeypatch.setattr(flusher, "FIRST_DELAY", 0.001)
    rng = random.Random(1)

    class Shaky(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            if rng.random() < 0.2:
                raise ConnectionError("shaky")
            super().save_many(keys, values)

    rejected: list[int] = []
    store, cache = make(Shaky(), capacity=300, on_rejected=lambda keys, *_: rejected.extend(keys.tolist()))
    store.refused = set(range(0, 300, 3))
    cache.put_many(range(300), range(300))
    cache.flush()
    assert sorted(rejected) == sorted(store.refused)
    assert sorted(store.rows) == [key for key in range(300) if key % 3]
    assert max(seen, default=0) <= 2
    cache.close()


def test_a_refusal_among_failures_is_handed_over() -> None:
    rejected: list[int] = []

    class Mixed(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            if 5 in keys:
                raise OSError("unavailable")
            if 6 in keys:
                raise RowsRejected("never")
            super().save_many(keys, values)

    store, cache = make(
        Mixed(), capacity=50, flush_interval=0.0, on_rejected=lambda keys, *_: rejected.extend(keys.tolist())
    )
    cache.put_many(range(20), range(20))
    wait_for(cache, 1)
    assert rejected == [6]
    assert sorted(store.rows) == [key for key in range(20) if key not in (5, 6)]
    with pytest.raises(TimeoutError):
        cache.close(0.05)
    store.save_many = lambda keys, values: None  # type: ignore[method-assign]
    cache.close()


def test_what_the_store_must_not_call_says_who_called_it() -> None:
    told: list[str] = []

    class Flushing(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            try:
                cache.flush()
            except RuntimeError as error:
                told.append(str(error))
            super().save_many(keys, values)

    _, cache = make(Flushing())
    cache[1] = 1
    cache.close()
    assert "the methods of the store" in told[0]


def test_the_log_shows_where_an_error_of_ones_own_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    class Mistaken(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            if not threading.main_thread().name:
                raise AssertionError
            self.misspelt(keys)  # type: ignore[attr-defined]

    store, cache = make(Mistaken())
    cache[1] = 1
    with caplog.at_level(logging.WARNING, "slabcache"):
        with pytest.raises(TimeoutError):
            cache.flush(0.0)
        while not cache.stats().flush_errors:
            time.sleep(0.001)
    assert "self.misspelt(keys)" in caplog.text
    store.save_many = lambda keys, values: None  # type: ignore[method-assign]
    cache.close()


def test_the_random_numbers_of_the_program_are_left_alone() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    store, cache = make(capacity=100)
    store.failure = OSError("down")
    cache.put_many(range(50), range(50))
    with pytest.raises(TimeoutError):
        cache.flush(0.0)
    while cache.stats().flush_errors < 2:
        time.sleep(0.001)
    assert random.random() == expected
    store.failure = None
    cache.close()
