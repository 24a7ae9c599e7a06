"""Zero GC: the collector never sees an entry.

Each measurement is also taken of an OrderedDict of the same shape, where it must come out the other
way: that is the proof that the test can fail.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slabcache import SlabCache
from support.scripts import command, run

PAIR = [("user", "u8"), ("channel", "u8")]
STATE = [("last", "u8"), ("count", "u4"), ("pin", "u8")]
ENTRIES = 20_000


def tracked() -> int:
    """How many objects the collector tracks, once the garbage of earlier tests is gone."""
    count = -1
    while count != (count := len(gc.get_objects())):
        gc.collect()
    return count


def fill_by_scalars(cache: Any) -> None:
    for at in range(ENTRIES):
        cache[at, at + 1] = (at, 1, 2**63 + at)


def fill_by_batch(cache: SlabCache) -> None:
    keys = np.arange(2 * ENTRIES).reshape(ENTRIES, 2)
    cache.put_many(keys, np.ones(ENTRIES, STATE))


@pytest.mark.parametrize("fill", [fill_by_scalars, fill_by_batch])
def test_as_many_tracked_objects_full_as_empty(fill: Callable[[Any], None]) -> None:
    cache = SlabCache(ENTRIES, PAIR, STATE)
    fill(SlabCache(ENTRIES, PAIR, STATE))  # whatever a first call creates once
    before = tracked()
    fill(cache)
    assert len(cache) == ENTRIES
    assert tracked() == before


def test_the_count_of_tracked_objects_can_grow() -> None:
    ordinary: OrderedDict[Any, Any] = OrderedDict()
    before = tracked()
    for at in range(ENTRIES):
        ordinary[at, at + 1] = [at, 1, 2**63 + at]
    assert tracked() >= before + ENTRIES


def test_the_cache_refers_to_as_much_full_as_empty() -> None:
    cache = SlabCache(ENTRIES, PAIR, STATE)
    before = len(gc.get_referents(cache))
    fill_by_scalars(cache)
    assert len(gc.get_referents(cache)) == before < 50


def test_records_and_iterated_keys_of_numbers_are_untracked() -> None:
    cache = SlabCache(10, "u8", STATE)
    fill = np.arange(10)
    cache.put_many(fill, np.ones(10, STATE))
    assert not any(gc.is_tracked(record) for record in cache.values())
    assert not gc.is_tracked(cache.get(3))
    assert not gc.is_tracked(cache.peek(3))


CHURN = """
    import gc, sys
    from collections import OrderedDict
    import numpy as np
    from slabcache import SlabCache

    PAIR = [("user", "u8"), ("channel", "u8")]
    STATE = [("last", "u8"), ("count", "u4"), ("pin", "u8")]
    CAPACITY, WRITES = 200_000, 1_000_000


    class Ordinary(OrderedDict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            if len(self) > CAPACITY:
                self.popitem(last=False)


    def scalars(cache, count):
        for at in range(count):
            cache[at] = at

    def records(cache, count):
        for at in range(count // 2):
            cache[at, 5] = (at, 1, at)
            cache.get((at, 5))

    def lists(cache, count):
        for at in range(count):
            cache[at] = [at]

    ROWS = np.arange(10_000)

    def batches(cache, count):
        for start in range(0, count, len(ROWS)):
            keys = ROWS + start
            cache.put_many(keys, keys)
            cache.get_many(keys)
            cache.increment_many(keys, by=1)
            cache.delete_many(keys[:100])

    run, cache = {
        "scalars": (scalars, SlabCache(CAPACITY, "u8", "u8")),
        "records": (records, SlabCache(CAPACITY, PAIR, STATE)),
        "batches": (batches, SlabCache(CAPACITY, "u8", "u8")),
        "ordinary": (lists, Ordinary()),
    }[sys.argv[1]]
    run(cache, 20_000)
    cache.clear()
    # All collections are counted, also those that the loop itself would cause.
    collections = lambda: sum(generation["collections"] for generation in gc.get_stats())
    gc.collect()
    runs, count, blocks = collections(), gc.get_count(), sys.getallocatedblocks()
    run(cache, WRITES)
    blocks = sys.getallocatedblocks() - blocks
    moved = max(abs(new - old) for new, old in zip(gc.get_count(), count))
    runs = collections() - runs
    assert len(cache) > CAPACITY * 0.9
    print(runs, moved, blocks)
"""


@pytest.mark.parametrize("way", ["scalars", "records", "batches"])
def test_nothing_moves_over_a_million_writes(way: str) -> None:
    """From empty to full and far beyond: no collection, no allocation that stays."""
    collections, moved, blocks = map(int, run(CHURN, way).split())
    assert collections == 0
    assert moved <= 20  # of a million; the measurement itself makes a few objects
    assert abs(blocks) <= 200


def test_what_moves_over_a_million_writes_to_an_ordinary_cache() -> None:
    collections, _, blocks = map(int, run(CHURN, "ordinary").split())
    assert collections > 0
    assert blocks > 200_000


COLLECT = """
    import gc, sys, time
    from collections import OrderedDict
    import numpy as np
    from slabcache import SlabCache

    kind, count = sys.argv[1], int(sys.argv[2])
    if kind == "slab":
        cache = SlabCache(10_000_000, "u8", "u8")
        for start in range(0, count, 1_000_000):
            rows = np.arange(start, start + 1_000_000)
            cache.put_many(rows, rows)
    else:
        cache = OrderedDict(((at, at + 1), [at]) for at in range(count))
    assert len(cache) == count
    gc.collect()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter_ns()
        gc.collect()
        print(time.perf_counter_ns() - start, flush=True)
"""


def test_a_collection_takes_no_longer_with_ten_million_entries() -> None:
    """Processes side by side, asked in turn; only ratios of medians are compared."""
    subjects = {
        "empty": ("slab", 0),
        "full": ("slab", 10_000_000),
        "ordinary": ("ordinary", 500_000),
    }
    processes = {
        name: subprocess.Popen(
            command(COLLECT, *subject),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, subject in subjects.items()
    }
    times: dict[str, list[int]] = {name: [] for name in processes}

    def answer(process: subprocess.Popen[str]) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdout.readline().strip()

    try:
        for process in processes.values():
            assert answer(process) == "ready"
        for _ in range(25):
            for name, process in processes.items():
                print("go", file=process.stdin, flush=True)
                times[name].append(int(answer(process)))
    finally:
        for process in processes.values():
            process.communicate()
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    assert medians["full"] < 2.5 * medians["empty"]
    assert medians["ordinary"] > 2.5 * medians["empty"]
