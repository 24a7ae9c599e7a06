"""Bytes that an entry takes in front of a store: those that are resident, after every slot had its turn."""

from __future__ import annotations

import pytest

from support.scripts import run

ENTRIES = 1_000_000
UNSAVED = ENTRIES * 3 // 100
DATA = 32  # bytes of key and value
MARK = 32  # bytes

#: Bytes an entry; the last for what the measurement cannot tell apart: pages of 2 MiB, and what the
#: interpreter takes meanwhile.
LINKS, TABLE, NUMBERS, MARKS, NOISE = 12, 9, 1, 1, 4

CHURN = """
    import sys
    import numpy as np
    from measuring.memory import resident_bytes
    from measuring.stores import VoidStore
    from slabcache import WriteBehindCache

    entries, unsaved, pending = map(int, sys.argv[1:])
    key = np.dtype([("user_id", "u8"), ("channel_id", "u8")])
    value = np.dtype([("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u4")])

    def write(cache, numbers):
        keys = np.zeros(len(numbers), key)
        keys["user_id"], keys["channel_id"] = numbers, numbers * 7
        cache.put_many(keys, np.zeros(len(numbers), value))

    rng = np.random.default_rng(1)
    with WriteBehindCache(10_000, VoidStore(key, value), flush_interval=1e6, flush_rows=1000) as other:
        write(other, np.arange(10_000))
    before = resident_bytes()
    store = VoidStore(key, value)
    cache = WriteBehindCache(entries, store, flush_interval=1e6, flush_rows=1000, max_pending=pending)
    at_start = resident_bytes() - before
    for start in range(0, entries, unsaved):            # each slot is dirty once, then by chance
        write(cache, np.arange(start, start + unsaved))
        cache.flush()
    for _ in range(entries // unsaved):
        write(cache, rng.integers(0, 2 * entries, unsaved))     # half of them evict
        cache.flush()
    after_churn = resident_bytes() - before
    write(cache, np.arange(3 * entries, 3 * entries + entries // 2))
    print(cache.nbytes, at_start, after_churn, resident_bytes() - before - after_churn)
    cache.close()
"""


@pytest.fixture(scope="module")
def sizes() -> tuple[int, ...]:
    """Of a fresh process: what is reserved; what is resident when the cache is new, and after the churn; what
    half of all rows unsaved at a time add to that."""
    return tuple(map(int, run(CHURN, ENTRIES, UNSAVED, ENTRIES // 80).split()))


def test_an_entry_takes_little_but_its_data_after_every_slot_was_unsaved(sizes: tuple[int, ...]) -> None:
    assert sizes[2] / ENTRIES < DATA + LINKS + TABLE + NUMBERS + MARKS + NOISE


def test_a_new_cache_has_touched_next_to_nothing(sizes: tuple[int, ...]) -> None:
    assert sizes[1] < 0.2 * sizes[2]


def test_rows_that_are_unsaved_at_a_time_take_a_mark_each(sizes: tuple[int, ...]) -> None:
    """Of what was reserved for all of them."""
    assert 0.8 * MARK < sizes[3] / (ENTRIES // 2 - UNSAVED) < MARK + NOISE
    assert sizes[0] / ENTRIES > DATA + LINKS + TABLE + MARK
