"""The cache in front of a store: an adapter for the suites, and what runs by itself."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from measuring.memory import resident_bytes
from measuring.read_states import KEY, VALUE, Rows, values_of
from measuring.stores import VoidStore
from slabcache import WriteBehindCache
from slabcache.stores import SQLiteStore

from .peers import SlabCachePeer
from .workload import CHUNK_ROWS, chunks, draw_keys

NEVER = 1e6  # seconds between flushes: what is measured then is the call alone

#: Of a service whose increments are absorbed.
INTERVAL = 1.0  # seconds between flushes
PAUSE = 0.002  # seconds that its store takes for a batch
DRAWN = 256  # batches of keys drawn beforehand, to be used again and again

#: Of the store that is measured.
CALL_ROWS = 1000
LARGE_CALL_ROWS = 16_000
FILL_ROWS = 100_000
ASCENDING = 1 << 62  # from here on, in front of all that is drawn but few


class WriteBehindPeer(SlabCachePeer):
    """The same calls; nothing is written behind while they are measured."""

    label = "WriteBehindCache"

    def __init__(self, capacity: int) -> None:
        self.cache: Any = WriteBehindCache(capacity, VoidStore(KEY, VALUE), flush_interval=NEVER)


def absorb(call: str, entries: int, seconds: float, seed: int) -> dict[str, Any]:
    """Increment entries in random order, all in memory, while a slow store is written behind."""
    rng = np.random.default_rng(seed)
    keys = draw_keys(rng, entries)
    cache = WriteBehindCache(entries, VoidStore(KEY, VALUE, PAUSE), flush_interval=INTERVAL)
    for chunk in chunks(keys):
        cache.put_many(chunk, values_of(chunk))
    drawn = [keys[rng.integers(entries, size=CHUNK_ROWS)] for _ in range(DRAWN)]
    increment = _increments(cache, call, drawn)
    _repeat(increment, seconds / 2)  # by now all memory is in use that will be
    cache.reset_stats()
    resident = resident_bytes()
    batches, elapsed = _repeat(increment, seconds)
    growth = resident_bytes() - resident
    stats = cache.stats()
    cache.close()
    return {
        "increment_ns": elapsed * 1e9 / (batches * CHUNK_ROWS),
        "growth_bytes": growth,
        "saved_rows_per_second": stats.flushed_rows / elapsed,
        "oldest_dirty_seconds": stats.oldest_dirty_age,
    }


def _increments(cache: WriteBehindCache, call: str, drawn: list[Rows]) -> Callable[[], object]:
    """A function that makes `CHUNK_ROWS` increments."""
    field = "mention_count"
    if call == "increment_many":
        batches = cycle(drawn)
        return lambda: cache.increment_many(next(batches), field)
    items = cycle([chunk.tolist() for chunk in drawn])

    def loop() -> None:
        for key in next(items):
            cache.increment(key, field)

    return loop


def _repeat(function: Callable[[], object], seconds: float) -> tuple[int, float]:
    """How often the function ran, and the seconds that took: hardly more than those given."""
    started, count = perf_counter(), 0
    while (elapsed := perf_counter() - started) < seconds:
        function()
        count += 1
    return count, elapsed


def store_rows(folder: Path, rows: int, rounds: int, seed: int) -> dict[str, Any]:
    """Save into and load from an SQLite table that has so many rows of random keys; microseconds a row.

    The kinds of calls take turns, and all of their calls count: some copy the log into the table, for others.
    """
    rng = np.random.default_rng(seed)
    there = draw_keys(rng, rows)
    spent: dict[str, float] = defaultdict(float)
    saved: dict[str, int] = defaultdict(int)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        store = SQLiteStore(Path(directory, "rows.db"), table="rows", key=KEY, value=VALUE)
        for start in range(0, rows, FILL_ROWS):
            part = there[start : start + FILL_ROWS]
            store.save_many(part, values_of(part))

        def timed(kind: str, keys: Rows, call: Callable[..., object], *values: Rows) -> None:
            started = perf_counter()
            call(keys, *values)
            spent[kind] += perf_counter() - started
            saved[kind] += len(keys)

        for number in range(rounds):
            new = draw_keys(rng, CALL_ROWS)
            timed("new", new, store.save_many, values_of(new))
            known = there[rng.choice(rows, CALL_ROWS, replace=False)]
            changed = values_of(known)
            changed["mention_count"] += np.uint32(number + 1)  # SQLite does not write what stays as it is
            timed("changed", known, store.save_many, changed)
            ascending = draw_keys(rng, CALL_ROWS)
            ascending["user_id"] = ASCENDING + number * CALL_ROWS + np.arange(CALL_ROWS, dtype="u8")
            timed("ascending", ascending, store.save_many, values_of(ascending))
            timed("loaded", there[rng.choice(rows, CALL_ROWS, replace=False)], store.load_many)
            if number % (LARGE_CALL_ROWS // CALL_ROWS) == 0:
                many = draw_keys(rng, LARGE_CALL_ROWS)
                timed("new_in_large_calls", many, store.save_many, values_of(many))
        store.close()
    return {f"{kind}_us": spent[kind] * 1e6 / saved[kind] for kind in spent}
