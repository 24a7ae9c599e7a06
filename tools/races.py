"""What threads do to one cache at a time, for ThreadSanitizer to watch: races.py [--seconds N]

Run by `make tsan`. Each thread makes its own arguments and keeps its own results; caches alone are shared, so
whatever is reported is a race on a cache. No collections: they read what other threads have made, having
stopped these by means that the sanitizer does not see.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from slabcache import SlabCache
from slabcache.behind.core import MISSING, WriteBehindCore
from slabcache.behind.drain import IDLE, Batch
from slabcache.behind.request import CREATE, Request

THREADS = 4
KEYS = 600
ROWS = (10, 400)  # below and above those of a batch that runs without the GIL
VALUE = [("seen", "u8"), ("mentions", "u4")]


class Core(WriteBehindCore):
    """A cache before a store, without the store."""

    def __init__(self) -> None:
        super().__init__(300, 50, "u8", VALUE, (0, 0))


def of_cache(cache: Any, chance: random.Random) -> list[Callable[[], Any]]:
    key = chance.randrange(KEYS)
    keys = np.array([chance.randrange(KEYS) for _ in range(chance.choice(ROWS))], "u8")
    values = np.zeros(len(keys), VALUE)
    return [
        lambda: cache.get(key),
        lambda: cache.peek(key),
        lambda: key in cache,
        lambda: cache.touch(key),
        lambda: cache.__setitem__(key, (1, 2)),
        lambda: cache.setdefault(key, (1, 2)),
        lambda: key in cache and cache.pop(key, None),
        lambda: cache.increment_many([key], "mentions"),
        lambda: cache.get_many(keys),
        lambda: cache.put_many(keys, values, return_evicted=True),
        lambda: cache.increment_many(keys, "mentions"),
        lambda: cache.delete_many(keys[:5]),
        lambda: cache.touch_many(keys),
        lambda: cache.contains_many(keys),
        lambda: (len(cache), cache.stats(), cache.nbytes, cache.bytes_per_entry),
        lambda: cache.snapshot(),
        lambda: cache.resize(chance.choice([200, 300])) if chance.random() < 0.1 else None,
        lambda: cache.clear() if chance.random() < 0.02 else None,
        lambda: cache.reset_stats(),
        lambda: cache.copy(),
    ]


def of_core(core: Any, chance: random.Random) -> list[Callable[[], Any]]:
    key = chance.randrange(KEYS)
    keys = np.array([chance.randrange(KEYS) for _ in range(chance.choice(ROWS))], "u8")
    values = np.zeros(len(keys), VALUE)

    def save() -> None:
        if not SAVING.acquire(blocking=False):
            return
        try:
            core._sleep(IDLE)
            batch = Batch(core, 100)
            core._drain(batch, 2**63)
            slots, since, *_ = batch.columns()
            if chance.random() < 0.1:
                core._put_aside(slots, since)
                batch = Batch(core, len(slots))
                core._take_again(batch, slots)
            if chance.random() < 0.1:
                core._restore(batch)
            else:
                core._settle(batch.columns()[0], chance.random() < 0.9)
        finally:
            SAVING.release()

    def change() -> None:
        request = Request(core, keys, CREATE)
        if core._delete(request) == MISSING:
            rows, _, since = core._missing(request)
            request.supply(rows, np.zeros(len(rows), VALUE), np.ones(len(rows), bool), since, True)
            core._delete(request)

    def wait() -> None:
        request = Request(core, keys, CREATE)
        request.find_first()
        if core._put(keys, values, request, False) is None:
            core._ask_for_room(request)
            if chance.random() < 0.5 or core._put(keys, values, request, False) is None:
                core._release_room(request)

    return [
        lambda: core._attempt(key, True, True),
        lambda: core._attempt(key, False, False),
        lambda: core._attempt_put(key, (1, 2)),
        lambda: core._attempt_increment(key, "mentions", 1),
        lambda: core._delete_least_recent(),
        lambda: core._put(keys[:20], values[:20], None, True),
        lambda: core._put(keys, values, None, False),
        lambda: core._read(Request(core, keys, 0, True, True)),
        lambda: core._keep(keys, values, np.ones(len(keys), bool), 2**60),
        lambda: core._invalidate(Request(core, keys[:5], 0)),
        lambda: (core._unsaved(), core.closed, len(core)),
        lambda: core._keeps_room(),
        lambda: core._release_all_room() if chance.random() < 0.02 else None,
        save,
        change,
        wait,
    ]


SAVING = threading.Lock()


def work(shared: Any, calls_of: Callable[..., Any], seed: int, end: float) -> int:
    """Make calls until `end`, in an order of the thread's own; how many."""
    chance = random.Random(seed)
    count = 0
    while time.monotonic() < end:
        for call in chance.sample(calls_of(shared, chance), 6):
            call()
            count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each kind of cache")
    options = parser.parse_args()
    gc.disable()
    seed = random.randrange(2**32)
    print(f"seed {seed}, {THREADS} threads", flush=True)
    for shared, calls_of in ((SlabCache(300, "u8", VALUE), of_cache), (Core(), of_core)):
        end = time.monotonic() + options.seconds
        with ThreadPoolExecutor(THREADS) as pool:
            works = [pool.submit(work, shared, calls_of, seed + number, end) for number in range(THREADS)]
            calls = sum(each.result() for each in works)
        shared._check()
        print(f"{type(shared).__name__}: {calls} calls", flush=True)
    return 0


sys.exit(main())
