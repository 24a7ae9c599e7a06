"""Read States: one small record for each (user, channel), written and read in random order.

Rules that keep the figures honest:

* Keys are handed out as new objects, equal to those in the cache and never identical with them.
* Before anything is measured all entries are read in random order, so that the order of recency has nothing
  to do with the order in memory; evictions are measured only after everything has been replaced once.
* Each round draws its keys anew. Keys that have just ordered the list find their neighbours in the
  processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = np.dtype([("user_id", "u8"), ("channel_id", "u8")])
VALUE = np.dtype([("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u8")])

CHUNK_ROWS = 4096  # rows of a round, and of a batch unless it says otherwise

Rows = NDArray[np.void]
Columns = tuple[list[int], ...]
Fields = tuple[int, int, int]


def draw_keys(rng: np.random.Generator, rows: int) -> Rows:
    """Keys that nobody has drawn before, as there are so many of them."""
    keys: Rows = rng.integers(1 << 63, size=(rows, 2), dtype=np.uint64).view(KEY)[:, 0]
    return keys


def values_of(keys: Rows) -> Rows:
    """Records for keys: two large numbers and a small one each, as in the service."""
    values = np.zeros(len(keys), VALUE)
    values["last_message_id"] = keys["user_id"] ^ keys["channel_id"]
    values["mention_count"] = keys["channel_id"] & np.uint64(7)
    values["last_pin_ts"] = keys["channel_id"] >> np.uint64(22)
    return values


def load(user: int, channel: int) -> Fields:
    """The same record for one key: the store behind a cache that is read through."""
    return user ^ channel, channel & 7, channel >> 22


def chunks(keys: Rows) -> Iterator[Rows]:
    """`CHUNK_ROWS` keys at a time."""
    for start in range(0, len(keys), CHUNK_ROWS):
        yield keys[start : start + CHUNK_ROWS]


def key_columns(keys: Rows) -> Columns:
    """The users and the channels, as lists of new integers."""
    return _columns(keys)


def row_columns(keys: Rows) -> Columns:
    """The users, the channels and three fields of a value, as lists of new integers."""
    return _columns(keys) + _columns(values_of(keys))


def _columns(rows: NDArray[Any]) -> Columns:
    return tuple(rows[name].tolist() for name in rows.dtype.names or ())
