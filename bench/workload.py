"""Keys and rows to measure with: Read States, written and read in random order.

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

from measuring.read_states import KEY, Rows, values_of

CHUNK_ROWS = 4096  # rows of a round, and of a batch unless it says otherwise

Columns = tuple[list[int], ...]


def draw_keys(rng: np.random.Generator, rows: int) -> Rows:
    """Keys that nobody has drawn before, as there are so many of them."""
    keys: Rows = rng.integers(1 << 63, size=(rows, 2), dtype=np.uint64).view(KEY)[:, 0]
    return keys


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
