"""Measure slabcache: ``python -m bench.native.slab batch|scalar ENTRIES ROWS SEED``.

`batch` is get_many and put_many of a chunk of rows a call, arrays of results included. `scalar` is
``cache[a, b]``: the loop, new tuples and the Record are inside of the clock, the integers are made outside.
"""

from __future__ import annotations

import gc
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import perf_counter_ns, process_time_ns, thread_time_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.workload import CHUNK_ROWS
from measuring.read_states import KEY, VALUE, Rows, values_of
from slabcache import SlabCache

STALL_WRITES = 16  # scalar writes between two looks at the clock, which costs as much as a write
SEED_BITS = 40
DRAWS = 1 << (SEED_BITS - 1)  # a seed has numbers of its own, the first half for keys, the second for draws

Numbers = NDArray[np.uint64]


@dataclass
class Total:
    """Time and result of a loop over many rows."""

    operation: str
    entries: int
    rows: int = 0
    cpu_ns: int = 0
    wall_ns: int = 0
    found: int = 0  # of a read, hits; of a write, how many of the latest keys are there afterwards
    sum: int = 0
    longest_gap_ns: int = 0
    process_cpu_ns: int | None = None  # of all threads; of a collection


class Subject(ABC):
    """One way to use the cache.

    `prepare` turns arrays into what the calls take, outside of the clock, `few_rows` between two looks at it.
    """

    def __init__(self, cache: SlabCache) -> None:
        self.cache = cache

    @abstractmethod
    def prepare(self, few_rows: int, *arrays: Rows) -> Any: ...

    @abstractmethod
    def read(self, rows: Any, total: Total) -> None: ...

    @abstractmethod
    def write(self, rows: Any, total: Total) -> None: ...


class Batch(Subject):
    def prepare(self, few_rows: int, *arrays: Rows) -> tuple[Rows, ...]:  # noqa: ARG002 - one call is all
        return arrays

    def read(self, rows: tuple[Rows], total: Total) -> None:
        values, found = self.cache.get_many(rows[0])
        total.sum += int(values["mention_count"].sum())
        total.found += int(np.count_nonzero(found))

    def write(self, rows: tuple[Rows, Rows], total: Total) -> None:
        started = perf_counter_ns()
        self.cache.put_many(*rows)
        total.longest_gap_ns = max(total.longest_gap_ns, perf_counter_ns() - started)


class Scalar(Subject):
    def prepare(self, few_rows: int, *arrays: Rows) -> list[list[list[int]]]:
        """Columns of integers, for a few rows at a time."""
        return [
            [rows[name][start : start + few_rows].tolist() for rows in arrays for name in _names(rows)]
            for start in range(0, len(arrays[0]), few_rows)
        ]

    def read(self, rows: list[list[list[int]]], total: Total) -> None:
        cache = self.cache
        mentions = 0
        for users, channels in rows:
            for user, channel in zip(users, channels, strict=True):
                mentions += cache[user, channel].mention_count
            total.found += len(users)  # an absent key would have raised
        total.sum += mentions

    def write(self, rows: list[list[list[int]]], total: Total) -> None:
        cache = self.cache
        before = perf_counter_ns()
        for few in rows:
            for user, channel, message, mention, pin in zip(*few, strict=True):
                cache[user, channel] = message, mention, pin
            now = perf_counter_ns()
            total.longest_gap_ns = max(total.longest_gap_ns, now - before)
            before = now


SUBJECTS: dict[str, type[Subject]] = {"batch": Batch, "scalar": Scalar}


def measure(subject: Subject, entries: int, rows: int, seed: int) -> Iterator[Total]:
    """The steps that the package describes. What is not measured is done in batches."""
    base = seed << SEED_BITS
    batch = Batch(subject.cache)
    write(batch, Total("fill", entries), base, 0, entries)
    order = np.random.default_rng(seed).permutation(entries).astype(np.uint64)
    read(batch, Total("touch", entries), base, order)
    draws = splitmix(_numbers(base + DRAWS, rows)) % np.uint64(entries)
    yield read(subject, Total("hit", entries), base, draws)
    yield write(subject, Total("turnover", entries), base, entries, entries, STALL_WRITES)
    written = write(subject, Total("write", entries), base, 2 * entries, rows)
    latest = _numbers(2 * entries + rows - min(rows, entries), min(rows, entries))
    written.found = int(np.count_nonzero(subject.cache.contains_many(keys_of(base, latest))))
    yield written
    yield collection(entries)


def read(subject: Subject, total: Total, base: int, numbers: Numbers) -> Total:
    """Read the keys of these numbers."""
    for start in range(0, len(numbers), CHUNK_ROWS):
        keys = keys_of(base, numbers[start : start + CHUNK_ROWS])
        timed(subject.read, subject.prepare(CHUNK_ROWS, keys), len(keys), total)
    return total


def write(
    subject: Subject, total: Total, base: int, first: int, rows: int, few_rows: int = CHUNK_ROWS
) -> Total:
    """Write the keys of as many numbers from the first one on."""
    for start in range(0, rows, CHUNK_ROWS):
        keys = keys_of(base, _numbers(first + start, min(CHUNK_ROWS, rows - start)))
        timed(subject.write, subject.prepare(few_rows, keys, values_of(keys)), len(keys), total)
    return total


def timed(call: Any, prepared: Any, rows: int, total: Total) -> None:
    wall, cpu = perf_counter_ns(), thread_time_ns()
    call(prepared, total)
    total.cpu_ns += thread_time_ns() - cpu
    total.wall_ns += perf_counter_ns() - wall
    total.rows += rows


def collection(entries: int) -> Total:
    """One full collection."""
    total = Total("collection", entries)
    process = process_time_ns()
    timed(lambda *_: gc.collect(), None, entries, total)
    total.process_cpu_ns = process_time_ns() - process
    return total


def keys_of(base: int, numbers: Numbers) -> Rows:
    """The keys of these numbers: the same in every program."""
    columns = np.empty((len(numbers), 2), np.uint64)
    first = np.uint64(base) + np.uint64(2) * numbers
    columns[:, 0] = splitmix(first)
    columns[:, 1] = splitmix(first + np.uint64(1))
    return columns.view(KEY)[:, 0]


def splitmix(numbers: Numbers) -> Numbers:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) as a hash: different numbers, different results."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _numbers(first: int, count: int) -> Numbers:
    return np.arange(first, first + count, dtype=np.uint64)


def _names(rows: Rows) -> tuple[str, ...]:
    return rows.dtype.names or ()


def main() -> None:
    name, *numbers = sys.argv[1:]
    entries, rows, seed = map(int, numbers)
    gc.collect()
    gc.freeze()  # what the interpreter and numpy brought along is no part of the figures
    subject = SUBJECTS[name](SlabCache(entries, key=KEY, value=VALUE))
    for total in measure(subject, entries, rows, seed):
        print(json.dumps(asdict(total)))


if __name__ == "__main__":
    main()
