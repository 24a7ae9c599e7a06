"""From time stamps to numbers: percentiles of the latency, pauses, and the collector's part in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .service import Run

PERCENTILES = (50.0, 99.0, 99.9, 99.99)
#: From how many nanoseconds on a pause is counted.
PAUSE = 1_000_000

Nanoseconds = NDArray[np.int64]


@dataclass(frozen=True)
class Summary:
    """One line of the table. Times in nanoseconds, memory in bytes.

    A request's latency runs from when it was due to its end. Its pause runs from when it could start, that
    is, it was due and the one before it was done, to its end: waiting behind another is no pause of its own.

    throughput: requests in a second of work, the waiting for the next one to become due left out.
    load: the share of the time that was work; at 1 the requests arrive faster than they are served.
    longest_working: the longest pause, less what the system gave to others in it.
    longest_quiet: the same of the pauses with no collection in them. quiet_at: when that one ended.
    """

    throughput: float
    load: float
    percentiles: tuple[float, ...]
    longest: int
    longest_working: int
    pauses: int
    longest_quiet: int
    quiet_at: int
    collecting: int
    full_collections: int
    bytes_per_entry: float
    hit_ratio: float


@dataclass(frozen=True)
class Windows:
    """Latency by window of arrival: the middle of each in seconds, p99 and maximum in nanoseconds."""

    time: NDArray[np.float64]
    p99: NDArray[np.float64]
    maximum: Nanoseconds


def summarize(run: Run, interval: int, entries: int) -> Summary:
    """Reduce a run whose requests were due each `interval` nanoseconds to a line of the table."""
    ended = np.array(run.ended)
    latency = latencies(run, interval)
    started = ended - latency
    started[1:] = np.maximum(started[1:], ended[:-1])
    pause = ended - started
    away = np.diff(ended, prepend=0) - np.diff(run.worked, prepend=run.worked[0])
    working = pause - np.clip(away, 0, pause)
    collections = np.array(run.collections, np.int64).reshape(-1, 3)
    quiet = np.where(_overlap(started, ended, collections), 0, working)
    busy = int(pause.sum())
    return Summary(
        throughput=len(ended) / busy * 1e9,
        load=busy / int(ended[-1]),
        percentiles=tuple(np.percentile(latency, PERCENTILES)),
        longest=int(pause.max()),
        longest_working=int(working[1:].max()),
        pauses=int(np.count_nonzero(pause > PAUSE)),
        longest_quiet=int(quiet.max()),
        quiet_at=int(ended[quiet.argmax()]),
        collecting=int((collections[:, 1] - collections[:, 0]).sum()),
        full_collections=len(full_collections(run)),
        bytes_per_entry=run.resident / entries,
        hit_ratio=1 - run.misses / len(ended),
    )


def full_collections(run: Run) -> Nanoseconds:
    """Full collections of a run, as rows of (start, stop)."""
    collections = np.array(run.collections, np.int64).reshape(-1, 3)
    return collections[collections[:, 2] == 2, :2]


def latencies(run: Run, interval: int) -> Nanoseconds:
    """Latency of each request, from when it was due."""
    ended = np.array(run.ended)
    return ended - np.arange(len(ended)) * interval


def windows(run: Run, interval: int, count: int) -> Windows:
    """Cut the run into `count` windows of equal length by the time when the requests were due."""
    parts = np.array_split(latencies(run, interval), count)
    seconds = len(run.ended) * interval / 1e9
    return Windows(
        time=(np.arange(len(parts)) + 0.5) * seconds / len(parts),
        p99=np.array([np.percentile(part, 99) for part in parts]),
        maximum=np.array([part.max() for part in parts]),
    )


def _overlap(started: Nanoseconds, ended: Nanoseconds, collections: Nanoseconds) -> NDArray[np.bool_]:
    """Whether a collection ran at some time of each request. Collections are in order and do not overlap."""
    if not len(collections):
        return np.zeros(len(started), np.bool_)
    following = np.searchsorted(collections[:, 1], started)
    starts = np.append(collections[:, 0], np.iinfo(np.int64).max)
    return starts[following] < ended
