"""Faults of a store, whatever it is: `SQLiteStore` with trouble made in its calls."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slabcache import ClosedError, RowsRejected, WriteBehindCache
from slabcache.stores import SQLiteStore

from .load import (
    COUNTERS,
    KEY,
    NOTHING_LOST,
    VALUE,
    Load,
    Row,
    contents,
    lasting,
    open_cache,
    states_file,
    under_load,
)
from .report import Line

__all__ = ["FAULTS"]


class TroubledStore(SQLiteStore):
    """Its calls go well; subclasses say what comes before and after them during the trouble."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, table="states", key=KEY, value=VALUE)
        self.trouble = threading.Event()
        self.over = threading.Event()
        self.struck = 0  # calls that save

    def load_many(self, keys: Any) -> Any:
        if self.trouble.is_set():
            self.before_load(keys)
        return super().load_many(keys)

    def save_many(self, keys: Any, values: Any) -> None:
        is_struck = self.trouble.is_set()
        self.struck += is_struck
        if is_struck:
            self.before_save(keys)
        super().save_many(keys, values)
        if is_struck:
            self.after_save(keys, values)

    def before_load(self, keys: Any) -> None:
        pass

    def before_save(self, keys: Any) -> None:
        pass

    def after_save(self, keys: Any, values: Any) -> None:
        pass


class FailingStore(TroubledStore):
    """Nothing can be loaded or saved."""

    def before_load(self, keys: Any) -> None:  # noqa: ARG002 - all of them
        raise ConnectionError("nobody there")

    before_save = before_load


class BlockingStore(TroubledStore):
    """A call does not return until the trouble is over."""

    def before_load(self, keys: Any) -> None:  # noqa: ARG002 - all of them
        self.over.wait()

    before_save = before_load


def picked(keys: Any) -> Any:
    """Which of the keys are the one in 97 that some stores do not like."""
    return (keys >= COUNTERS) & (keys % 97 == 0) & (keys < 1 << 40)


class RefusingStore(TroubledStore):
    """One row in 97 will never be taken."""

    def before_save(self, keys: Any) -> None:
        if picked(keys).any():
            raise RowsRejected("97 is not liked here")


class SpottyStore(TroubledStore):
    """One row in 97 can be neither loaded nor saved, as where a partition is down; others can."""

    saved = 0  # rows, meanwhile

    def before_load(self, keys: Any) -> None:
        if picked(keys).any():
            raise ConnectionError("that partition is down")

    before_save = before_load

    def after_save(self, keys: Any, values: Any) -> None:  # noqa: ARG002 - their number will do
        self.saved += len(keys)


class MistakenStore(TroubledStore):
    """It raises what a mistake of its own, or of its driver, would raise."""

    def before_save(self, keys: Any) -> None:  # noqa: ARG002 - all of them
        raise TypeError("NoneType is not a connection")


class TwiceStore(TroubledStore):
    """Each batch is saved twice, as by a driver that has sent a request again."""

    def after_save(self, keys: Any, values: Any) -> None:
        SQLiteStore.save_many(self, keys, values)


class LyingStore(TroubledStore):
    """Most batches are saved, and reported as failed."""

    chance = random.Random(4)

    def after_save(self, keys: Any, values: Any) -> None:  # noqa: ARG002 - they are saved
        if self.chance.random() < 0.7:
            raise TimeoutError("no answer, though it is done")


@contextmanager
def troubled(store: TroubledStore, seconds: float) -> Iterator[Load]:
    """The load on this store, in trouble for so many seconds; then comes the body, and the trouble ends."""
    with under_load(store) as load:
        store.trouble.set()
        load.fault_begins()
        time.sleep(seconds)
        yield load
        load.fault_ends()
        store.trouble.clear()
        store.over.set()


def run(kind: type[TroubledStore], seconds: float, fault: str, done: str, promised: str) -> Line:
    """A fault of which there is nothing to be seen but what all have in common."""
    with states_file() as path:
        store = kind(path)
        with troubled(store, seconds) as load:
            pass
        stored = contents(path)
    broken = [] if store.struck else ["there was no fault"]
    return load.line(fault, f"{done} for {seconds:g} s", promised, stored, broken=broken)


def failing(quick: bool) -> Line:
    done = "every call raises `ConnectionError`"
    return run(FailingStore, lasting(quick, 15.0), "store fails", done, NOTHING_LOST)


def mistaken(quick: bool) -> Line:
    done = "every call that saves raises `TypeError`"
    promised = "no acknowledged row is lost: only `RowsRejected` refuses rows"
    return run(MistakenStore, lasting(quick), "store makes a mistake", done, promised)


def twice(quick: bool) -> Line:
    done = "each batch is applied twice, one right after the other,"
    promised = "no acknowledged row is lost, none is counted twice: what is saved are values, not differences"
    return run(TwiceStore, lasting(quick), "store applies twice", done, promised)


def lying(quick: bool) -> Line:
    done = "most batches are applied, then `TimeoutError` is raised,"
    promised = "no acknowledged row is lost, none is counted twice: a batch is repeated until it is confirmed"
    return run(LyingStore, lasting(quick), "store raises after applying", done, promised)


def blocking(quick: bool) -> Line:
    seconds = lasting(quick, 10.0)
    with states_file() as path:
        with troubled(BlockingStore(path), seconds) as load:
            broken = [] if times_out(load.cache) else ["flush(0.1) has returned though nothing was saved"]
            broken += unreadable(load)
        stored = contents(path)
    if not load.refused:
        broken.append("no write was told that there is no room")
    return load.line(
        "store blocks",
        f"no call returns for {seconds:g} s",
        "no acknowledged row is lost, all can be read meanwhile; without room: `BackpressureError`",
        stored,
        broken=broken,
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
    seconds = lasting(quick)
    handed: dict[int, Row] = {}

    def take(keys: Any, values: Any, error: BaseException) -> None:
        assert isinstance(error, RowsRejected)
        handed.update(zip(keys.tolist(), values.tolist(), strict=True))

    with states_file() as path:
        store = RefusingStore(path)
        store.trouble.set()
        with under_load(store, on_rejected=take) as load:
            load.ignore = lambda key: bool(picked(key))
            load.endure(seconds)
        stored = contents(path)
    refused = {key: row for key, row in load.truth.items() if picked(key)}
    broken = []
    if handed != refused:
        wrong = sum(handed.get(key) != refused.get(key) for key in handed.keys() | refused.keys())
        broken.append(f"{wrong} rows are handed over or not, other than they should be")
    if any(picked(key) for key in stored):
        broken.append("a row is stored that was refused")
    return load.line(
        "store refuses single rows",
        f"`RowsRejected` for every batch with a row of certain keys, for {seconds:g} s",
        "exactly those are handed to `on_rejected`, with their last values; all others are stored",
        stored,
        lost_note=f"refused and handed over: {len(handed):,}",
        given_up=refused,
        broken=broken,
    )


def spotty(quick: bool) -> Line:
    seconds = lasting(quick)
    with states_file() as path:
        store = SpottyStore(path)
        with troubled(store, seconds) as load:
            failing = load.cache.stats().failing
        stored = contents(path)
    broken = []
    if not store.saved or not failing:
        broken.append(f"{store.saved} others were saved while {failing} rows failed by themselves")
    return load.line(
        "store fails for single rows",
        f"`ConnectionError` for every call with a row of certain keys, for {seconds:g} s",
        "no acknowledged row is lost; all others are stored meanwhile",
        stored,
        lost_note=f"saved meanwhile: {store.saved:,}, failing at the end: {failing:,}",
        broken=broken,
    )


def closed_early(quick: bool) -> Line:
    """In place of the cache, which would have closed it."""
    rows = 100 if quick else 500
    broken = []
    with states_file() as path:
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


FAULTS = (failing, blocking, refusing, spotty, mistaken, closed_early, twice, lying)
