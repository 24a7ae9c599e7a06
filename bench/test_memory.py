"""What does a full cache take from its process: bytes, and time of the collector?

Each cache is measured in a process of its own, by what the system says that it has resident.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

import numpy as np
import pytest

from measuring.memory import resident_bytes

from .peers import EVICTING, PEERS, SlabCachePeer
from .sizes import HUGE, LARGE
from .workload import draw_keys, row_columns

FEW = 1000


def footprint(name: str, entries: int) -> dict[str, Any]:
    """Fill, read, collect. Bytes and nanoseconds of processor time."""
    rng = np.random.default_rng()
    keys = draw_keys(rng, entries)
    PEERS[name](FEW).fill(keys[:FEW])  # what a first use brings along is no part of the figures
    gc.collect()
    gc.freeze()
    gc.disable()
    before = resident_bytes()
    peer = PEERS[name](entries)
    peer.fill(keys)
    resident = resident_bytes() - before
    figures: dict[str, Any] = {"entry_resident_bytes": resident / entries}
    if isinstance(peer, SlabCachePeer):
        figures["entry_bytes"] = peer.cache.nbytes / entries
    peer.touch(keys[rng.permutation(entries)])
    figures["collect_ns"] = collection(peer.write, row_columns(draw_keys(rng, FEW)))
    return figures


def collection(write: Callable[..., None], columns: tuple[list[int], ...]) -> int:
    """The first full collection after some writes, the usual state of a cache.

    An earlier one has untracked what can be untracked; a write tracks the dict that it is made to again.
    """
    gc.collect()
    write(*columns)
    started = thread_time_ns()
    gc.collect()
    return thread_time_ns() - started


@pytest.mark.parametrize(("name", "entries"), [*((name, LARGE) for name in EVICTING), ("slabcache", HUGE)])
def test_footprint(record: Callable[..., None], cut: Callable[[int], int], name: str, entries: int) -> None:
    record(footprint, name, cut(entries), name=name, entries=entries)
