"""Faults of a store, whatever it is: `SQLiteStore` with trouble made in its calls."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slabcache import ClosedError, RowsRejected, WriteBehindCache
from slabcache.stores import SQLiteStore

from .load import COUNTERS, KEY, VALUE, Load, contents, fill_cold, open_cache
from .report import Line

__all__ = ["FAULTS"]

NOTHING_LOST = "no acknowledged row is lost"


class TroubledStore(SQLiteStore):
    """Its calls go well; subclasses see to it that they do not while `trouble` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, table="states", key=KEY, value=VALUE)
        self.trouble = threading.Event()
        self.struck = 0  # calls

    def is_struck(self) -> bool:
        self.struck += self.trouble.is_set()
        return self.trouble.is_set()


class FailingStore(TroubledStore):
    """Nothing can be loaded or saved."""

    def load_many(self, keys: Any) -> Any:
        if self.is_struck():
            raise ConnectionError("nobody there")
        return super().load_many(keys)

    def save_many(self, keys: Any, values: Any) -> None:
        if self.is_struck():
            raise ConnectionError("nobody there")
        super().save_many(keys, values)


class BlockingStore(TroubledStore):
    """A call does not return until the trouble is over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.released = threading.Event()

    def load_many(self, keys: Any) -> Any:
        if self.is_struck():
            self.released.wait()
        return super().load_many(keys)

    def save_many(self, keys: Any, values: Any) -> None:
        if self.is_struck():
            self.released.wait()
        super().save_many(keys, values)


class RefusingStore(TroubledStore):
    """One row in 97 will never be taken."""

    @staticmethod
    def refuses(keys: Any) -> Any:
        return (keys >= COUNTERS) & (keys % 97 == 0) & (keys < 1 << 40)

    def save_many(self, keys: Any, values: Any) -> None:
        if self.refuses(keys).any() and self.is_struck():
            raise RowsRejected("97 is not liked here")
        super().save_many(keys, values)


class SpottyStore(TroubledStore):
    """One row in 97 can be neither loaded nor saved, as where a partition is down; others can."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.saved = 0  # rows, meanwhile

    def load_many(self, keys: Any) -> Any:
        if self.trouble.is_set() and RefusingStore.refuses(keys).any():
            raise ConnectionError("that partition is down")
        return super().load_many(keys)

    def save_many(self, keys: Any, values: Any) -> None:
        if RefusingStore.refuses(keys).any() and self.is_struck():
            raise ConnectionError("that partition is down")
        super().save_many(keys, values)
        self.saved += len(keys) * self.trouble.is_set()


class MistakenStore(TroubledStore):
    """It raises what a mistake of its own, or of its driver, would raise."""

    def save_many(self, keys: Any, values: Any) -> None:
        if self.is_struck():
            raise TypeError("NoneType is not a connection")
        super().save_many(keys, values)


class TwiceStore(TroubledStore):
    """Each batch is saved twice, as by a driver that has sent a request again."""

    def save_many(self, keys: Any, values: Any) -> None:
        super().save_many(keys, values)
        if self.is_struck():
            super().save_many(keys, values)


class LyingStore(TroubledStore):
    """Most batches are saved, and reported as failed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._random = random.Random(4)

    def save_many(self, keys: Any, values: Any) -> None:
        super().save_many(keys, values)
        if self.is_struck() and self._random.random() < 0.7:
            raise TimeoutError("no answer, though it is done")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="slabcache-faults-") as name:
        path = Path(name) / "states.db"
        fill_cold(path)
        yield path


def run(kind: type[TroubledStore], seconds: float, fault: str, done: str, promised: str) -> Line:
    with folder() as path:
        store = kind(path)
        with open_cache(store) as cache, Load(cache) as load:
            time.sleep(1.0)
            with load.faulty():
                store.trouble.set()
                load.fault_begins()
                time.sleep(seconds)
                load.fault_ends()
                store.trouble.clear()
        stored = contents(path)
    broken = load.broken(stored) + ([] if store.struck else ["there was no fault"])
    lost, reads = len(load.lost(stored)), load.reads_meanwhile()
    return Line(fault, done, promised, load.acknowledged(), lost, reads, load.recovered, broken=broken)


def failing(quick: bool) -> Line:
    seconds = 2.0 if quick else 15.0
    done = f"every call raises `ConnectionError` for {seconds:g} s"
    return run(FailingStore, seconds, "store fails", done, NOTHING_LOST)


def blocking(quick: bool) -> Line:
    seconds = 2.0 if quick else 10.0
    with folder() as path:
        store = BlockingStore(path)
        with open_cache(store) as cache, Load(cache) as load:
            time.sleep(1.0)
            with load.faulty():
                store.trouble.set()
                load.fault_begins()
                time.sleep(seconds)
                broken = [] if times_out(cache) else ["flush(0.1) has returned though nothing was saved"]
                broken += unreadable(load)
                load.fault_ends()
                store.trouble.clear()
                store.released.set()
        stored = contents(path)
    if not load.refused:
        broken.append("no write was told that there is no room")
    return Line(
        "store blocks",
        f"no call returns for {seconds:g} s",
        "no acknowledged row is lost, all can be read meanwhile; without room: `BackpressureError`",
        load.acknowledged(),
        len(load.lost(stored)),
        load.reads_meanwhile(),
        load.recovered,
        broken=load.broken(stored) + broken,
    )


def times_out(cache: WriteBehindCache) -> bool:
    try:
        cache.flush(0.1)
    except TimeoutError:
        return True
    return False


def unreadable(load: Load) -> list[str]:
    """All rows that were acknowledged since the fault began, read one by one."""
    load.rest()
    keys = load.acknowledged_since()
    wrong = [key for key in keys if tuple(load.cache.peek(key)) != load.truth[key]]
    load.go_on()
    return [f"{len(wrong)} of {len(keys)} unsaved rows cannot be read"] if wrong or not keys else []


def refusing(quick: bool) -> Line:
    """It refuses from the beginning to the end, so that each write of such a row must be handed over."""
    seconds = 2.0 if quick else 6.0
    handed: dict[int, tuple[int, int]] = {}

    def take(keys: Any, values: Any, error: BaseException) -> None:
        assert isinstance(error, RowsRejected)
        handed.update(zip(keys.tolist(), values.tolist(), strict=True))

    with folder() as path:
        store = RefusingStore(path)
        store.trouble.set()
        with open_cache(store, on_rejected=take) as cache, Load(cache) as load:
            load.ignore = lambda key: bool(store.refuses(key))
            time.sleep(1.0)
            with load.faulty():
                load.fault_begins()
                time.sleep(seconds)
                load.fault_ends()
        stored = contents(path)
    refused = {key: row for key, row in load.truth.items() if store.refuses(key)}
    broken = load.broken(stored)
    if handed != refused:
        wrong = sum(handed.get(key) != refused.get(key) for key in handed.keys() | refused.keys())
        broken.append(f"{wrong} rows are handed over or not, other than they should be")
    if any(store.refuses(key) for key in stored):
        broken.append("a row is stored that was refused")
    return Line(
        "store refuses single rows",
        f"`RowsRejected` for every batch with a row of certain keys, for {seconds:g} s",
        "exactly those are handed to `on_rejected`, with their last values; all others are stored",
        load.acknowledged(),
        len(set(load.lost(stored)) - refused.keys()),
        load.reads_meanwhile(),
        load.recovered,
        lost_note=f"refused and handed over: {len(handed):,}",
        broken=broken,
    )


def spotty(quick: bool) -> Line:
    seconds = 2.0 if quick else 6.0
    with folder() as path:
        store = SpottyStore(path)
        with open_cache(store) as cache, Load(cache) as load:
            time.sleep(1.0)
            with load.faulty():
                store.trouble.set()
                load.fault_begins()
                time.sleep(seconds)
                failing = cache.stats().failing
                load.fault_ends()
                store.trouble.clear()
        stored = contents(path)
    broken = load.broken(stored)
    if not store.struck or not store.saved or not failing:
        broken.append(f"{store.saved} others were saved while {failing} rows failed by themselves")
    return Line(
        "store fails for single rows",
        f"`ConnectionError` for every call with a row of certain keys, for {seconds:g} s",
        "no acknowledged row is lost; all others are stored meanwhile",
        load.acknowledged(),
        len(load.lost(stored)),
        load.reads_meanwhile(),
        load.recovered,
        lost_note=f"saved meanwhile: {store.saved:,}, failing at the end: {failing:,}",
        broken=broken,
    )


def mistaken(quick: bool) -> Line:
    seconds = 2.0 if quick else 6.0
    done = f"every call that saves raises `TypeError` for {seconds:g} s"
    promised = "no acknowledged row is lost: only `RowsRejected` refuses rows"
    return run(MistakenStore, seconds, "store makes a mistake", done, promised)


def closed_early(quick: bool) -> Line:
    """In place of the cache, which would have closed it."""
    rows = 100 if quick else 500
    broken = []
    with folder() as path:
        store = TroubledStore(path)
        cache = open_cache(store, flush_interval=1e6)
        for key in range(rows):
            cache[key] = key, 0
        store.close()
        for end in (cache.flush, cache.close):
            began = time.monotonic()
            try:
                end()
                broken.append(f"{end.__name__}() has returned though nothing was saved")
            except ClosedError as error:
                if f"{rows} rows" not in str(error):
                    broken.append(f"{end.__name__}() says {error}")
            took = time.monotonic() - began
        if not cache.closed:
            broken.append("the cache is open still")
        lost = sum(key not in contents(path) for key in range(rows))
    return Line(
        "store closed early",
        f"the store is closed under its cache, with {rows} rows unsaved",
        "`flush()` and `close()` end with `ClosedError` and say how many rows are unsaved",
        f"{rows}",
        0,
        "-",
        took,
        lost_note=f"unsaved, as was said: {lost}",
        broken=broken,
    )


def twice(quick: bool) -> Line:
    seconds = 2.0 if quick else 6.0
    done = f"each batch is applied twice, one right after the other, for {seconds:g} s"
    promised = "no acknowledged row is lost, none is counted twice: what is saved are values, not differences"
    return run(TwiceStore, seconds, "store applies twice", done, promised)


def lying(quick: bool) -> Line:
    seconds = 2.0 if quick else 6.0
    done = f"most batches are applied, then `TimeoutError` is raised, for {seconds:g} s"
    promised = "no acknowledged row is lost, none is counted twice: a batch is repeated until it is confirmed"
    return run(LyingStore, seconds, "store raises after applying", done, promised)


FAULTS = (failing, blocking, refusing, spotty, mistaken, closed_early, twice, lying)
