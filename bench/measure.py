"""All figures of one cache, in a process of its own, as JSON: ``python -m bench.measure PEER ENTRIES SEED``.

Times are CPU time of the one thread, so that the time slices of other processes do not count. The collector
is off while anything but a collection is timed. Integers are made outside of the clock; the loop over them,
the tuple of the key and the tuple of the value are inside, as they are part of using any of the caches.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import thread_time_ns

import numpy as np

from .peers import PEERS, Peer, SlabCachePeer
from .workload import CHUNK_ROWS, KEY, Columns, Rows, generate, key_chunks, row_chunks

MEASURED_ROWS = 300_000  # rows behind each time; fewer where the cache is smaller
STALL_WRITES = 16  # writes between two looks at the clock, which itself costs as much as a write


@dataclass(frozen=True)
class Figures:
    """What one process measured; None where the cache or the platform has no such thing."""

    hit_ns: float
    evicting_write_ns: float
    batch_row_ns: float | None
    entry_bytes: float | None
    collect_s: float
    stall_s: float


def measure(name: str, entries: int, seed: int) -> Figures:
    """Fill, read, replace and collect, once each."""
    measured = min(MEASURED_ROWS, entries)
    work = generate(entries, measured, seed)
    PEERS[name](1)  # imports the package
    gc.collect()
    gc.freeze()  # what the interpreter and numpy brought along is no part of the figures
    gc.disable()
    before = resident_bytes()
    peer = PEERS[name](entries)
    run(peer.write, row_chunks(work.fill))
    after = resident_bytes()
    run(peer.read, key_chunks(work.reads[measured:]))
    hit = run(peer.read, key_chunks(work.reads[:measured]))
    stall = longest_stall(peer, work.turnover)
    write = run(peer.write, row_chunks(work.writes))
    if len(peer) != entries:
        raise AssertionError(f"{len(peer)} entries are not the {entries} that the cache has room for")
    return Figures(
        hit_ns=hit / measured,
        evicting_write_ns=write / measured,
        batch_row_ns=read_batches(peer, work.batch_reads) if isinstance(peer, SlabCachePeer) else None,
        entry_bytes=(after - before) / entries if before and after else None,
        collect_s=collection(peer, work.fill) / 1e9,
        stall_s=stall / 1e9,
    )


def run(loop: Callable[..., None], chunks: Iterable[Columns]) -> int:
    """CPU nanoseconds of the loop over all chunks, without the making of the chunks."""
    spent = 0
    for columns in chunks:
        start = thread_time_ns()
        loop(*columns)
        spent += thread_time_ns() - start
    return spent


def longest_stall(peer: Peer, rows: Rows) -> int:
    """CPU nanoseconds of the slowest `STALL_WRITES` writes in a row."""
    longest = 0
    for columns in row_chunks(rows):
        for start in range(0, len(columns[0]), STALL_WRITES):
            few = [column[start : start + STALL_WRITES] for column in columns]
            started = thread_time_ns()
            peer.write(*few)
            longest = max(longest, thread_time_ns() - started)
    return longest


def read_batches(peer: SlabCachePeer, keys: Rows) -> float:
    """CPU nanoseconds a row of batch reads of `CHUNK_ROWS` rows each, the arrays of the results included."""
    spent = found = 0
    for start in range(0, len(keys), CHUNK_ROWS):
        chunk = np.empty(len(keys[start : start + CHUNK_ROWS]), KEY)
        chunk[:] = keys[start : start + CHUNK_ROWS]
        started = thread_time_ns()
        found += peer.read_batch(chunk)
        spent += thread_time_ns() - started
    if found != len(keys):
        raise AssertionError(f"{len(keys) - found} of {len(keys)} keys that must be there are not")
    return spent / len(keys)


def collection(peer: Peer, rows: Rows) -> int:
    """CPU nanoseconds of the first full collection after some writes, the usual state of a cache.

    An earlier one has untracked what can be untracked; a write tracks the dict that it is made to again.
    """
    gc.collect()
    columns = next(iter(row_chunks(rows)))
    peer.write(*[column[:1000] for column in columns])
    start = thread_time_ns()
    gc.collect()
    return thread_time_ns() - start


def resident_bytes() -> int | None:
    """Resident memory of this process; None where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    json.dump(asdict(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # the freeing of millions of objects is nobody's figure
