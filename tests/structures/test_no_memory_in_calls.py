"""No memory, at each moment of a call: one that raises MemoryError has changed nothing, also where it has to
wait for a load.

For Python 3.11: newer versions end the process where they find no memory for a frame, and numpy on
free-threaded builds leaves the heap in disorder.
"""

from __future__ import annotations

import gc
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from slabcache._structures import without_memory

from slabcache import WriteBehindCache
from slabcache.behind.steps import Call
from support.faulty_store import FaultyStore

UPSTREAM = ("StringDType is not currently supported", "can't allocate lock")  # what others make of it
BIG = 2**40  # no int that is always there
KEYS = np.array([1, 2, 3, 9], "u8")
KEYS.flags.writeable = False
RECORD = [("seen", ">i8"), ("mentions", "u4")]

CALLS: dict[str, Callable[[WriteBehindCache], Any]] = {
    "pop": lambda cache: cache.pop(3),
    "pop of an unsaved row": lambda cache: cache.pop(1),
    "del": lambda cache: cache.__delitem__(3),
    "popitem": lambda cache: cache.popitem(),
    "[]=": lambda cache: cache.__setitem__(9, cache.peek(1)),
    "setdefault": lambda cache: cache.setdefault(9, (BIG, 1)),
    "update_fields": lambda cache: cache.update_fields(3, seen=BIG + 1),
    "increment": lambda cache: cache.increment(3, "seen"),
    "increment in memory": lambda cache: cache.increment(1, "seen", 5),
    "increment_many": lambda cache: cache.increment_many(KEYS, "seen"),
    "delete_many": lambda cache: cache.delete_many(KEYS),
    "put_many": lambda cache: cache.put_many(KEYS, np.zeros(4, RECORD)),
    "put_many, evicted": lambda cache: cache.put_many(KEYS, np.zeros(4, RECORD), return_evicted=True),
}


class PlainStore(FaultyStore):
    """Without locks, as one of the interpreter's that finds no memory at the wrong moment is never released.
    And with as little of numpy as can be: it crashes, or leaves bytes in their own order."""

    def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        names = keys.tolist()
        rows = b"".join([struct.pack(">q", row[0]) + struct.pack("=I", row[1]) for row in self._found(names)])
        found = bytes([name in self.rows for name in names])
        return np.frombuffer(rows, self.value_dtype), np.frombuffer(found, "?")

    def _found(self, names: list[int]) -> list[tuple[int, int]]:
        return [self.rows.get(name, (0, 0)) for name in names]

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.rows.update(zip(keys.tolist(), values.tolist(), strict=True))

    def delete_many(self, keys: np.ndarray) -> None:
        for key in keys.tolist():
            self.rows.pop(key, None)


class HeldStore(PlainStore):
    """It takes rows once its gate is open, and keeps none."""

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.gate.wait()


def build() -> WriteBehindCache:
    store = PlainStore(value=RECORD, rows={key: (BIG + key, 0) for key in (1, 2, 3)})
    cache = WriteBehindCache(2, store, max_pending=4, flush_interval=1000.0)
    cache[1] = (BIG, 7)
    assert cache[2] == (BIG + 2, 0)
    return cache


# Those that make allocations by the dozen.
LOADING = ("pop", "del", "setdefault", "update_fields", "increment", "increment_many", "delete_many")


def state(cache: WriteBehindCache) -> tuple[Any, ...]:
    values, found = cache.peek_many(KEYS)
    return values.tolist(), found.tolist()


@contextmanager
def without_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


if sys.version_info < (3, 12):

    @pytest.mark.parametrize("name", CALLS)
    def test_a_call_that_finds_no_memory_changes_nothing(name: str) -> None:
        call = CALLS[name]

        # A call of the main thread that waits runs in another. The collector is not the matter here.
        with ThreadPoolExecutor(1) as pool, without_collections():
            untouched, done = build(), build()
            pool.submit(call, done).result()
            before, after = state(untouched), state(done)
            done.close()
            number, reached, cache = 0, True, untouched
            while reached:
                number += 1
                cache.invalidate_many([3, 9])
                error, reached = pool.submit(without_memory, number, call, cache).result()
                known = isinstance(error, MemoryError) or str(error).startswith(UPSTREAM)
                assert error is None or known, (number, error)
                assert state(cache) == (after if error is None else before), (number, error)
                cache._check()
                assert cache._loader._flights.running == 0
                if error is None:
                    cache.close()
                    cache = build()
            cache.close()
        assert number > 50 or name not in LOADING


def test_a_write_that_has_waited_for_room() -> None:
    """Once it is made nothing fails any more, not even telling others that no room is kept."""
    made = 0
    for number in range(1, 40):
        store = HeldStore(value="i8")
        store.gate.clear()
        with WriteBehindCache(2, store, max_pending=0, flush_interval=0) as cache:
            cache[1] = cache[2] = 1
            call = Call(cache._putting_one(3, 30))
            assert call.advance()  # it waits for room, and has room kept
            store.gate.set()
            while cache.stats().dirty:
                time.sleep(0.001)
            store.gate.clear()
            error, _ = without_memory(number, call.advance)
            is_there = cache._attempt(3, False, False) == 30
            store.gate.set()
            assert is_there == (error is None), number
            made += is_there
            call.close()
    assert made
