"""The load: one writer that knows the truth, and two readers, before, during and after a fault.

The writer puts rows and increments counters through the cache. A write that returned is acknowledged and
becomes the truth; one that raised is not, and must have changed nothing. There are more rows than the cache
and its waiting room hold, so that rows are evicted while they are unsaved.

One reader reads what was acknowledged since the fault began: none of it is in the store, so all of it is in
memory, and no such read may fail. The other asks for rows that only the store has.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slabcache import BackpressureError, WriteBehindCache
from slabcache.stores import SQLiteStore

from .report import Line

__all__ = [
    *("COLD", "COUNTERS", "KEY", "NOTHING_LOST", "NO_FAULT", "PREFIX", "VALUE", "Load", "Row"),
    *("contents", "fill_cold", "lasting", "open_cache", "open_store", "say", "states_file", "under_load"),
]

KEY, VALUE = "u8", [("number", "u8"), ("count", "u4")]
CAPACITY, ROWS = 4_000, 20_000
COUNTERS = 200  # the first keys; the next ROWS are put
COLD = range(1 << 40, (1 << 40) + 1_000)  # rows that are in the store, and never in memory
BURST, PAUSE = 50, 0.004  # writes without a rest; seconds of it
INCREMENTS = 5  # of a burst: each counter is written again long before it could be evicted
PATIENCE = 0.2  # seconds that a write waits for room
FLUSH_WITHIN = 120.0  # seconds; more is a fault of ours

PREFIX = "slabcache-faults-"  # of temporary folders
NOTHING_LOST = "no acknowledged row is lost"
NO_FAULT = "the store never failed: there was no fault"

Row = tuple[int, int]

logging.getLogger("slabcache").addHandler(logging.NullHandler())  # the faults are meant to be


def say(text: str) -> None:
    print(f"faults: {text}", file=sys.stderr, flush=True)


def lasting(quick: bool, seconds: float = 6.0) -> float:
    """Seconds that a fault lasts."""
    return 2.0 if quick else seconds


def open_store(path: Path, **options: Any) -> SQLiteStore:
    return SQLiteStore(path, table="states", key=KEY, value=VALUE, **options)


def fill_cold(store: Any) -> None:
    """Give the store the rows that only it has, and close it."""
    with contextlib.closing(store):
        keys = np.array(COLD, store.key_dtype)
        values = np.zeros(len(keys), store.value_dtype)
        values["number"] = keys
        store.save_many(keys, values)


@contextlib.contextmanager
def states_file() -> Iterator[Path]:
    """A file of SQLite's with these rows, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        path = Path(folder) / "states.db"
        fill_cold(open_store(path))
        yield path


def open_cache(store: Any, **options: Any) -> WriteBehindCache:
    given = {"flush_interval": 0.2, "flush_rows": 500, "backpressure_timeout": PATIENCE} | options
    capacity = given.pop("capacity", CAPACITY)
    return WriteBehindCache(capacity, store, **given)


def contents(path: Path) -> dict[int, Row]:
    """What the file has, over a connection of its own."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT key, number, count FROM states").fetchall()
    return {key: (number, count) for key, number, count in rows}


@contextlib.contextmanager
def under_load(store: Any, **options: Any) -> Iterator[Load]:
    """The load on a cache before this store. The body begins the fault and ends it; then comes recovery."""
    with open_cache(store, **options) as cache, Load(cache) as load:
        time.sleep(1.0)
        with load.faulty():
            yield load


class Load:
    """Run in a `with` block; `faulty()` is the time of the fault."""

    def __init__(self, cache: WriteBehindCache, keys: int = ROWS, cold_may_be_gone: bool = False) -> None:
        self.cache = cache
        self.truth: dict[int, Row] = {}
        self.writes = 0
        self.refused = 0  # for want of room
        self.failed: list[BaseException] = []  # writes that raised something else
        self.reads: Counter[tuple[str, str]] = Counter()  # (warm or cold, ok, failed or wrong)
        self.examples: list[str] = []  # of reads that should not have failed
        self.recovered = 0.0
        self.flush_errors = 0  # by then
        self.wrong_figures: list[str] = []  # of stats()
        self.ignore: Callable[[int], bool] = lambda _: False  # keys that are not read
        self._random = random.Random(1)
        self._keys = keys
        self._cold_may_be_gone = cold_may_be_gone
        self._waiting = False  # a cold read is under way
        self._recent: list[int] = []  # acknowledged since the fault began
        self._faulty = False
        self._running = threading.Event()
        self._running.set()
        self._resting = threading.Event()  # the writer has seen that it should not run
        self._stop = False
        targets = (self._write, self._read_warm, self._read_cold)
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._running.set()
        for thread in self._threads:
            thread.join()

    # ---- the course of things ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def faulty(self) -> Iterator[None]:
        """The body begins the fault and ends it; here the cache then recovers, and the load ends."""
        yield
        ended = time.monotonic()
        self.cache.flush(FLUSH_WITHIN)
        self.recovered = time.monotonic() - ended
        time.sleep(0.2)  # it goes on as before
        self.rest()
        self.cache.flush(FLUSH_WITHIN)
        stats = self.cache.stats()
        self.flush_errors = stats.flush_errors
        if stats.dirty or stats.pending or stats.oldest_dirty_age:
            self.wrong_figures.append(f"all is in the store, and it says {stats}")

    def fault_begins(self) -> None:
        """To be called when the fault has begun: what is acknowledged from here on is kept from the store."""
        self._nbytes = self.cache.nbytes
        self._recent = []
        self._faulty = True

    def fault_ends(self) -> None:
        """To be called before the fault does: what is read from here on does not count."""
        if self._waiting:
            self.reads["cold", "waiting"] += 1
        self._faulty = False
        stats, room = self.cache.stats(), self.cache.capacity // 4  # of max_pending
        if stats.pending > room or stats.dirty > self.cache.capacity + room:
            self.wrong_figures.append(f"more is unsaved than there is room for: {stats}")
        if self.cache.nbytes != self._nbytes:
            self.wrong_figures.append(f"it has grown from {self._nbytes} to {self.cache.nbytes} bytes")

    def endure(self, seconds: float) -> None:
        """The fault has begun, and ends after so many seconds."""
        self.fault_begins()
        time.sleep(seconds)
        self.fault_ends()

    def rest(self) -> None:
        """Return when the writer stands still; readers do so soon after."""
        self._resting.clear()
        self._running.clear()
        self._resting.wait()

    def go_on(self) -> None:
        self._running.set()

    # ---- what came of it ------------------------------------------------------------------------------

    def acknowledged_since(self) -> set[int]:
        """Keys written since the fault began."""
        return set(self._recent)

    def lost(self, stored: dict[int, Row]) -> list[int]:
        return [key for key, row in self.truth.items() if stored.get(key) != row]

    def broken(self, stored: dict[int, Row]) -> list[str]:
        """What must not be, apart from lost rows."""
        found = self.wrong_figures.copy()
        if bad := self.reads["warm", "failed"] + self.reads["warm", "wrong"] + self.reads["cold", "wrong"]:
            found.append(f"{bad} reads failed that must not: {self.examples[:3]}")
        if not self.reads["warm", "ok"]:
            found.append("nothing was read from memory meanwhile")
        if extra := [key for key in stored if key not in self.truth and key not in COLD]:
            found.append(f"{len(extra)} rows are stored that were never acknowledged")
        if not self._cold_may_be_gone and any(stored.get(key) != (key, 0) for key in COLD):
            found.append("rows that were in the store before have changed")
        if self.failed:
            found.append(f"{len(self.failed)} writes failed: {self.failed[0]!r}")
        return found

    def line(
        self,
        fault: str,
        done: str,
        promised: str,
        stored: dict[int, Row],
        *,
        broken: Iterable[str] = (),
        lost_note: str = "",
        given_up: Collection[int] = (),
    ) -> Line:
        """What came of it, where this is stored; `broken` besides. Keys of `given_up` may be lost."""
        return Line(
            fault,
            done,
            promised,
            self.acknowledged(),
            len(set(self.lost(stored)).difference(given_up)),
            self.reads_meanwhile(),
            self.recovered,
            lost_note,
            [*self.broken(stored), *broken],
        )

    def acknowledged(self) -> str:
        refused = f"; {self.refused} refused for want of room" if self.refused else ""
        return f"{len(self.truth):,} ({self.writes:,} writes{refused})"

    def reads_meanwhile(self) -> str:
        parts = []
        for where, name in (("warm", "in memory"), ("cold", "others")):
            kinds = [f"{self.reads[where, kind]:,} {kind}" for kind in ("ok", "failed")]
            kinds += [f"{self.reads[where, kind]} {kind}" for kind in ("waiting",) if self.reads[where, kind]]
            parts.append(f"{name}: {' / '.join(kinds)}")
        return "; ".join(parts)

    # ---- the threads ------------------------------------------------------------------------------------

    def _write(self) -> None:
        counter = 0
        while not self._stop:
            if not self._running.is_set():
                self._resting.set()
                self._running.wait()
                continue
            for at in range(BURST):
                if at < INCREMENTS:
                    counter = (counter + 1) % COUNTERS
                    self._attempt(counter, increment=True)
                else:
                    self._attempt(COUNTERS + self._random.randrange(self._keys), increment=False)
                if not self._running.is_set():
                    break
            time.sleep(PAUSE)

    def _attempt(self, key: int, increment: bool) -> None:
        number, count = self.truth.get(key, (0, 0))
        try:
            if increment and key in self.truth:
                row = number, int(self.cache.increment(key, "count"))
                if row[1] != count + 1:
                    self.failed.append(AssertionError(f"counter {key} was {count} and became {row[1]}"))
            else:
                row = self.writes, count
                self.cache[key] = row
        except BackpressureError:
            self.refused += 1
            return
        except Exception as error:
            self.failed.append(error)
            return
        self.writes += 1
        self.truth[key] = row
        if not self.ignore(key):
            self._recent.append(key)

    def _read_warm(self) -> None:
        choice = random.Random(2)
        while not self._stop:
            time.sleep(0.001)
            self._running.wait()
            recent = self._recent
            if self._faulty and recent:
                key = recent[choice.randrange(len(recent))]
                self._judge("warm", key, self.truth[key])

    def _read_cold(self) -> None:
        choice = random.Random(3)
        while not self._stop:
            time.sleep(0.002)
            self._running.wait()
            if self._faulty:
                self._waiting = True
                key = choice.choice(COLD)
                self._judge("cold", key, (key, 0))
                self._waiting = False

    def _judge(self, where: str, key: int, least: Row) -> None:
        """Read a row, which must be as new as it was before; `peek` neither moves nor keeps it."""
        try:
            record = self.cache.peek(key)
        except Exception as error:
            kind = "failed"
            self.examples += [repr(error)] if where == "warm" else []
        else:
            if record is None:
                kind = "ok" if where == "cold" and self._cold_may_be_gone else "wrong"
            else:
                kind = "ok" if record[0] >= least[0] and record[1] >= least[1] else "wrong"
            if kind == "wrong":
                self.examples.append(f"row {key} was {least}, read {record}")
        if self._faulty:
            self.reads[where, kind] += 1
