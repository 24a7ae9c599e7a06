"""Read States: one small record for each (user, channel), written and read in random order.

Rules that keep the figures honest:

* Keys are handed out as new objects, equal to those in the cache and never identical with them.
* Before the first eviction all entries are read in random order, so that the order of recency has nothing to
  do with the order in memory; evictions are measured only after everything has been replaced once.
* No key is measured twice: one that was just used has its entry and its neighbours in the processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = np.dtype([("user_id", "u8"), ("channel_id", "u8")])
VALUE = np.dtype([("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u8")])

CHUNK_ROWS = 4096  # rows turned into Python objects at a time, outside of what is timed

Rows = NDArray[np.void]
Columns = tuple[list[int], ...]


@dataclass(frozen=True)
class Workload:
    """The rows of one run, in the order in which they are used.

    fill: as many keys as the cache has room for.
    reads: the same keys in random order.
    turnover: as many other keys, each of which evicts one.
    writes: further keys that evict.
    batch_reads: keys that are in the cache at the end, in random order.
    """

    fill: Rows
    reads: Rows
    turnover: Rows
    writes: Rows
    batch_reads: Rows


def generate(entries: int, measured: int, seed: int) -> Workload:
    """Draw all rows of a run for a cache of `entries`; each time is taken over `measured` of them."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(1 << 63, size=(2 * entries + measured, 2), dtype=np.uint64).view(KEY)[:, 0]
    fill, turnover, writes = np.split(keys, [entries, 2 * entries])
    live = keys[-entries:]
    return Workload(
        fill=fill,
        reads=fill[rng.permutation(entries)],
        turnover=turnover,
        writes=writes,
        batch_reads=live[rng.permutation(entries)[:measured]],
    )


def values_of(keys: Rows) -> Rows:
    """Records for keys: two large numbers and a small one each, as in the service."""
    values = np.zeros(len(keys), VALUE)
    values["last_message_id"] = keys["user_id"] ^ keys["channel_id"]
    values["mention_count"] = keys["channel_id"] & np.uint64(7)
    values["last_pin_ts"] = keys["channel_id"] >> np.uint64(22)
    return values


def key_chunks(keys: Rows) -> Iterator[Columns]:
    """The users and the channels of some keys at a time, as lists of new integers."""
    for start in range(0, len(keys), CHUNK_ROWS):
        yield _columns(keys[start : start + CHUNK_ROWS])


def row_chunks(keys: Rows) -> Iterator[Columns]:
    """The users, channels and three value fields of some rows at a time, as lists of new integers."""
    for start in range(0, len(keys), CHUNK_ROWS):
        chunk = keys[start : start + CHUNK_ROWS]
        yield _columns(chunk) + _columns(values_of(chunk))


def _columns(rows: NDArray[Any]) -> Columns:
    return tuple(rows[name].tolist() for name in rows.dtype.names or ())
