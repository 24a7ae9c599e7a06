"""The write-ahead log of SQLiteStore while somebody reads in a transaction that does not end, and after."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from slabcache.stores import SQLiteStore, sqlite_log

LOG_SIZE = 1 << 20  # bytes
ROWS = 300  # of a batch


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    monkeypatch.setattr(sqlite_log, "LOG_SIZE", LOG_SIZE)
    monkeypatch.setattr(sqlite_log, "_TOO_LARGE", LOG_SIZE * 5 // 4)
    with closing(SQLiteStore(path, table="t", key="u4", value="V64")) as store:
        yield store


numbers = itertools.count()


def save(store: SQLiteStore) -> int:
    """Save a batch; the size of the log after it, in bytes."""
    keys = np.arange(ROWS, dtype="u4") * np.uint32(7919) + np.uint32(next(numbers))
    store.save_many(keys, np.zeros(ROWS, "V64"))
    return size(store)


def size(store: SQLiteStore) -> int:
    return store._path.with_name(store._path.name + "-wal").stat().st_size


def grow(store: SQLiteStore, least: int) -> None:
    while save(store) < least:
        pass


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """Reads, and does not end its transaction before the block does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM t").fetchone()
        yield connection
        if connection.in_transaction:
            connection.execute("COMMIT")


def test_it_stays_small_without_one(store: SQLiteStore) -> None:
    assert max(save(store) for _ in range(100)) < 2 * LOG_SIZE


def test_it_grows_with_one_is_told_and_is_small_after_the_next_batch(
    store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in (1, 2):
        caplog.clear()
        with reader(path):
            grow(store, 11 * LOG_SIZE)
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 3, turn  # at 2, 4 and 8 times the size
        assert all(f"{path}-wal has grown to " in text and "lsof" in text for text in told)
        assert save(store) < LOG_SIZE
        assert save(store) < LOG_SIZE


def test_a_close_makes_it_small_too(store: SQLiteStore, path: Path) -> None:
    """Where somebody keeps the file open, without a transaction by then: else SQLite removes the log."""
    with reader(path) as connection:
        grow(store, 4 * LOG_SIZE)
        connection.execute("COMMIT")
        store.close()
        assert size(store) == 0
        assert connection.execute("SELECT count(*) FROM t").fetchone()[0] > ROWS


def test_readers_of_ones_own_are_not_in_the_way(store: SQLiteStore, path: Path) -> None:
    with reader(path):
        grow(store, 2 * LOG_SIZE)
        store.load_many(np.arange(10, dtype="u4"))
    store.load_many(np.arange(10, dtype="u4"))
    assert save(store) < LOG_SIZE


def test_what_is_saved_is_saved_though_the_log_cannot_be_emptied(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> bool:
        tried.append(True)
        raise sqlite3.OperationalError("disk I/O error")

    tried: list[bool] = []
    with reader(path):
        grow(store, 2 * LOG_SIZE)
        monkeypatch.setattr(sqlite_log, "_emptied", fails)
        store.save_many(np.array([1], "u4"), np.zeros(1, "V64"))
    assert tried
    assert store.load_many(np.array([1], "u4"))[1].all()


def test_the_busy_timeout_is_as_it_was(store: SQLiteStore, path: Path) -> None:
    with reader(path):
        grow(store, 2 * LOG_SIZE)
        with store._connections.writing() as opened:
            assert opened.connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)
