"""The longest stall of evicting writes: where a cache rebuilds its table, one of them waits for all of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

import numpy as np

from .full import FullCache
from .peers import PEERS
from .workload import chunks, draw_keys, row_columns

STALL_WRITES = 16  # between two looks at the clock, which itself costs as much as a write


def longest_stall(write: Callable[..., None], columns: tuple[list[int], ...]) -> int:
    """The slowest `STALL_WRITES` writes in a row, in nanoseconds of processor time."""
    longest = 0
    for start in range(0, len(columns[0]), STALL_WRITES):
        few = [column[start : start + STALL_WRITES] for column in columns]
        started = thread_time_ns()
        write(*few)
        longest = max(longest, thread_time_ns() - started)
    return longest


def stalls(name: str, entries: int, seed: int) -> dict[str, Any]:
    """Replace half of a full cache, the collector off: enough for a table to run out of unused places."""
    gc.disable()
    write = FullCache(PEERS[name], entries, seed).peer.write
    keys = draw_keys(np.random.default_rng(seed + 1), entries // 2)
    return {"stall_ns": max(longest_stall(write, row_columns(chunk)) for chunk in chunks(keys))}
