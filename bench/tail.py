"""A service's requests to one cache, in a process of its own.

    python -m bench.tail CACHE ENTRIES REQUESTS SEED KINDS

Each request makes the garbage of a service and does one thing with the cache: a single call, or a batch.
Time is cut at two points of each request, before the cache is called and after it has answered; so all of it
is spent either in the cache or in a gap between two calls. The collector runs at its default thresholds in
both, and is counted apart. What the system gave to other processes is clock time without processor time; the
processor's clock is looked at once in `WINDOW` requests, as it costs as much as a call of the cache. The
other clock costs some tens of nanoseconds, one look at which is in each duration.

The process serves `SLICE` requests at a time, and takes turns with others, see `turns`.

An operation is one key read, written, changed or deleted, by a call of its own or as a row of a batch.
"""

from __future__ import annotations

import gc
import resource
import struct
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measuring import turns
from measuring.collector import CollectorLog
from measuring.read_states import Rows

from .tail_caches import CACHES, Calls
from .workload import chunks, draw_keys

#: What requests do, and how many in a hundred do it. The first are single calls, the others batches.
MIX = {"read": 62, "count": 20, "edit": 8, "forget": 5, "read_batch": 3, "count_batch": 2}
SINGLES = 4
BATCH_ROWS = 32

#: Keys that requests ask for, for each entry of the cache. All are equally popular.
KEYS_PER_ENTRY = 1.25

#: Requests whose responses are written, and dropped, together. Each makes several objects, so a burst sets
#: off a dozen young collections, and its objects outlive them.
BURST = 4 * (gc.get_threshold()[0] or 700)
#: Responses of a complete burst that leave with each request, so that no request pays for all of them.
WRITTEN_AT_ONCE = 8
#: One request in so many leaves a reference cycle behind, as a caught exception or a context does.
CYCLE_EVERY = 64
#: One request in so many opens a session, which lives until `SESSIONS` others have been opened.
SESSION_EVERY = 16
SESSIONS = 5_000

#: Requests between two looks at the processor's clock, and between two lines of input.
WINDOW = 16
SLICE = 6_250 * WINDOW

#: The digits of the percentiles: 1 is the 90th, 2 the 99th, 3 the 99.9th.
NINES = [step / 10 for step in range(61)]

REQUEST = struct.Struct("<QQB")
REQUEST_DTYPE = np.dtype([("user_id", "<u8"), ("channel_id", "<u8"), ("kind", "u1")])

Nanoseconds = NDArray[np.int64]


@dataclass(frozen=True)
class Pause:
    """The longest of some stretches of time.

    clock: by the clock. working: the longest without what the system gave to others at about that time.
    """

    clock: int
    working: int


@dataclass(frozen=True)
class Tail:
    """What one process saw. Times in nanoseconds.

    working: processor time in all. collecting: that of the collector, for each slice.
    collections: how many, by generation. switches: how often the system took the processor away.
    operation: the longest stay in the cache, less the collections in it. gap: the same of what is between.
    collection: the longest run of the collector. request: the longest gap with the stay after it, collections
    included. request_parts: what the one that worked longest consists of.
    operation_ns, request_ns: the durations at `NINES` and the longest, collections included.
    """

    requests: int
    operations: int
    misses: int
    working: int
    collecting: list[int]
    collections: list[int]
    switches: int
    operation: Pause
    gap: Pause
    collection: Pause
    request: Pause
    request_parts: dict[str, int]
    operation_ns: list[int]
    request_ns: list[int]


class Service:
    """What requests leave behind, in bursts.

    A ring of a steady size would never start a collection, as the collector counts allocations less
    deallocations.
    """

    def __init__(self) -> None:
        self.burst: list[dict[str, Any]] = []
        self.complete: list[dict[str, Any]] = []
        self.sessions: deque[dict[str, Any]] = deque(maxlen=SESSIONS)

    def respond(self, request: dict[str, Any], answer: Iterable[int]) -> None:
        """Make the response, keep it until the burst is complete, write some of the burst before."""
        last_message_id, mention_count, last_pin_ts = answer
        number = request["id"]
        state = {"last": last_message_id, "mentions": mention_count, "pinned": last_pin_ts}
        response = {"request": request, "state": state}
        if number % CYCLE_EVERY == 0:
            request["response"] = response
        if number % SESSION_EVERY == 0:
            self.sessions.append({"key": request["key"], "state": state, "log": [number]})
        if self.complete:
            del self.complete[-WRITTEN_AT_ONCE:]
        self.burst.append(response)
        if len(self.burst) >= BURST:
            self.burst, self.complete = self.complete, self.burst


@dataclass(frozen=True)
class Stamps:
    """When each request called the cache and had its answer; both clocks at the end of each window."""

    called: array[int]
    answered: array[int]
    clock: array[int] = field(default_factory=lambda: array("q"))
    worked: array[int] = field(default_factory=lambda: array("q"))


def measure(name: str, entries: int, requests: int, seed: int, kinds: int) -> Tail:
    """Fill the cache, serve requests of the first `kinds` of `MIX`, say what took long."""
    rng = np.random.default_rng(seed)
    known = draw_keys(rng, int(entries * KEYS_PER_ENTRY))
    cache = CACHES[name](entries)
    _fill(cache, known, rng.integers(len(known), size=entries))
    stream, rows = _draw(rng, known, requests, kinds)
    del known
    stamps = Stamps(array("q", bytes(8 * requests)), array("q", bytes(8 * requests)))
    log = CollectorLog()
    gc.collect()

    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    with log:
        for _ in _serve(cache, stream, rows, stamps):
            turns.wait()
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
    return Tail(
        requests=requests,
        operations=requests + len(rows) - len(rows) // BATCH_ROWS,
        misses=cache.misses,
        switches=switches,
        **_durations(stamps, log),
    )


def _fill(cache: Calls, known: Rows, touched: NDArray[np.int64]) -> None:
    """Read all keys, more than there is room for; then in random order, which is that of any old cache."""
    for keys in chunks(known):
        cache.read_batch(keys)
    for keys in chunks(known[touched]):
        cache.read_batch(keys)
    cache.misses = 0


def _draw(rng: np.random.Generator, known: Rows, requests: int, kinds: int) -> tuple[bytes, Rows]:
    """The requests in their wire form, and the rows of their batches, in order."""
    shares = np.array(list(MIX.values())[:kinds], np.float64)
    stream = np.zeros(requests, REQUEST_DTYPE)
    stream["kind"] = rng.choice(kinds, size=requests, p=shares / shares.sum())
    keys = known[rng.integers(len(known), size=requests)]
    stream["user_id"], stream["channel_id"] = keys["user_id"], keys["channel_id"]
    batches = int(np.count_nonzero(stream["kind"] >= SINGLES))
    return stream.tobytes(), known[rng.integers(len(known), size=batches * BATCH_ROWS)]


def _serve(cache: Calls, stream: bytes, rows: Rows, stamps: Stamps) -> Iterator[None]:
    """Serve all requests, one after another; stop before each slice."""
    clock, decode, respond = perf_counter_ns, REQUEST.unpack_from, Service().respond
    calls: list[Callable[..., Iterable[int]]] = [getattr(cache, name) for name in MIX]
    called, answered = stamps.called, stamps.answered
    row = 0
    for number in range(len(called)):
        if number % SLICE == 0:
            yield
        user, channel, kind = decode(stream, number * REQUEST.size)
        request = {"id": number, "key": [user, channel], "headers": {"kind": kind}}
        call = calls[kind]
        if kind < SINGLES:
            called[number] = clock()
            answer = call(user, channel)
        else:
            keys = rows[row : row + BATCH_ROWS]
            row += BATCH_ROWS
            called[number] = clock()
            answer = call(keys)
        answered[number] = clock()
        respond(request, answer)
        if number % WINDOW == WINDOW - 1:
            stamps.worked.append(thread_time_ns())
            stamps.clock.append(clock())


def _durations(stamps: Stamps, log: CollectorLog) -> dict[str, Any]:
    """From points in time to stretches of it. A slice begins with a wait: its first window is left out."""
    called, answered = _slices(stamps.called, SLICE), _slices(stamps.answered, SLICE)
    begun, called, answered = answered[:, WINDOW - 1 : -1], called[:, WINDOW:], answered[:, WINDOW:]
    clock, worked = (_slices(s, SLICE // WINDOW) for s in (stamps.clock, stamps.worked))
    away = np.maximum(np.diff(clock) - np.diff(worked), 0).repeat(WINDOW, axis=1)

    runs, runs_worked = (np.diff(_slices(s, 2))[:, 0] for s in (log.clock, log.worked))
    ends = np.array(log.clock)[1::2]
    collected = np.append(0, np.cumsum(runs))
    before, between, after = (collected[np.searchsorted(ends, point)] for point in (begun, called, answered))
    operation, gap = answered - called - (after - between), called - begun - (between - before)
    request = answered - begun
    slowest = np.argmax(request - np.minimum(away, request))
    bounds = np.searchsorted(ends, clock[:, -1])
    return {
        "working": int((worked[:, -1] - worked[:, 0]).sum()),
        "collecting": np.diff(np.append(0, np.cumsum(runs_worked))[bounds], prepend=0).tolist(),
        "collections": np.bincount(log.generations, minlength=3).tolist(),
        "operation": _longest(operation, away),
        "gap": _longest(gap, away),
        "collection": Pause(int(runs.max()), int(runs_worked.max())),
        "request": _longest(request, away),
        "request_parts": {
            "collector": int((after - before).flat[slowest]),
            "cache": int(operation.flat[slowest]),
            "gap": int(gap.flat[slowest]),
        },
        "operation_ns": _at_nines(answered - called),
        "request_ns": _at_nines(request),
    }


def _slices(stamps: array[int], length: int) -> Nanoseconds:
    return np.array(stamps).reshape(-1, length)


def _longest(durations: Nanoseconds, away: Nanoseconds) -> Pause:
    return Pause(int(durations.max()), int((durations - np.minimum(away, durations)).max()))


def _at_nines(durations: Nanoseconds) -> list[int]:
    shares = [1 - 10**-nines for nines in NINES] + [1.0]
    values: list[int] = np.quantile(durations, shares, method="higher").tolist()
    return values


if __name__ == "__main__":
    cache_name, *numbers = sys.argv[1:]
    turns.finish(asdict(measure(cache_name, *map(int, numbers))))
