"""The service: serves requests at a steady rate in one process, and keeps the time of each.

Requests arrive on a schedule, whether or not the one before is done, as a service's clients do not wait for
its collector. So a request's latency counts from when it was due, and all that arrive in a pause feel it.

A service's garbage comes in bursts: what a request makes lives until its response is written, and responses
are written when a batch is complete. A ring of a steady size would never start a collection, as the collector
counts allocations less deallocations.
"""

from __future__ import annotations

import gc
import random
import resource
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import Any

from measuring.caches import Cache
from measuring.collector import CollectorLog
from measuring.memory import resident_bytes

from .contenders import CONTENDERS

#: The wire form of a request; `workload.REQUEST_DTYPE` is its twin.
REQUEST = struct.Struct("<QQ?")

#: Requests in a batch, on average. Each makes several objects, so a batch sets off a dozen young collections,
#: and its objects outlive them; the collector's first threshold differs between versions of Python.
BATCH = 4 * (gc.get_threshold()[0] or 700)
#: Responses of a complete batch that leave with each request, so that no request pays for all of them.
WRITTEN_AT_ONCE = 8
#: One request in so many leaves a reference cycle behind, as a caught exception or a context does.
CYCLE_EVERY = 64
#: Time for the loop to start before the first request is due, in nanoseconds.
HEAD_START = 5_000_000

Report = Callable[[int], None]


@dataclass(frozen=True)
class Run:
    """What one process measured. Times in nanoseconds since the first request was due.

    ended: when each request was done. worked: the processor time of the process by then, from any start: the
    loop never sleeps, so where this falls behind the clock, the system ran something else.
    collections: rows of (start, stop, generation).
    digest: a hash of every record served, in order.
    resident: bytes that the process grew by from before the fill.
    involuntary_switches: how often the system took the processor away during the requests.
    """

    ended: array[int]
    worked: array[int]
    collections: array[int]
    misses: int
    digest: int
    resident: int
    involuntary_switches: int


def measure(name: str, entries: int, interval: int, folder: Path, report: Report) -> Run:
    """Fill the contender's cache, serve a request each `interval` nanoseconds, return what was seen.

    report: called with the number of keys filled and requests served so far.
    """
    contender = CONTENDERS[name]
    warm = (folder / "warm").read_bytes()
    stream = (folder / "requests").read_bytes()
    ended = array("q", bytes(8 * (len(stream) // REQUEST.size)))
    worked = array("q", ended)
    log = CollectorLog()
    before = resident_bytes()
    kept = [contender.before_fill(entries)]
    cache = contender.cache(entries)
    _fill(cache, warm, report)
    cache.misses = 0
    kept.append(contender.after_fill(entries))
    gc.collect()

    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    with log:
        begin, digest = _replay(
            cache, stream, interval, ended, worked, lambda served: report(entries + served)
        )
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
    return Run(
        ended=array("q", (stamp - begin for stamp in ended)),
        worked=worked,
        collections=log.since(begin),
        misses=cache.misses,
        digest=digest,
        resident=resident_bytes() - before,
        involuntary_switches=switches,
    )


def _fill(cache: Cache, warm: bytes, report: Report) -> None:
    """Read each key once: every read is a miss, and the cache takes what the store has."""
    for number, request in enumerate(REQUEST.iter_unpack(warm)):
        cache.serve(*request)
        if number % BATCH == 0:
            report(number)


def _replay(
    cache: Cache, stream: bytes, interval: int, ended: array[int], worked: array[int], report: Report
) -> tuple[int, int]:
    """Serve the stream; note when each request was done, by both clocks.

    Returns when the first was due, and the digest.
    """
    decode, clock, processor_clock = REQUEST.unpack_from, perf_counter_ns, thread_time_ns
    # Batches differ in length, or they would fall into step with the collector.
    lengths = random.Random(BATCH)
    length = BATCH
    batch: list[Any] = []
    complete: list[Any] = []
    digest = 0
    due = begin = clock() + HEAD_START
    for number in range(len(ended)):
        user, channel, write = decode(stream, number * REQUEST.size)
        while clock() < due:
            pass
        response = _respond(cache, number, user, channel, write)
        digest = (digest * 31 + response["digest"]) & 0xFFFF_FFFF_FFFF
        ended[number] = clock()
        worked[number] = processor_clock()
        # What follows is the service's own work, too: when it takes long, the next request ends late.
        due += interval
        batch.append(response)
        if complete:
            del complete[-WRITTEN_AT_ONCE:]
        if len(batch) == length:
            complete, batch = batch, complete
            length = lengths.randrange(BATCH * 3 // 4, BATCH * 5 // 4)
            report(number)
    return begin, digest


def _respond(cache: Cache, number: int, user: int, channel: int, write: bool) -> dict[str, Any]:
    """Serve one request, with the objects that a service makes for it; all live as long as the response."""
    request = {"id": number, "key": [user, channel], "headers": {"method": "ACK" if write else "GET"}}
    last_message_id, mention_count, last_pin_ts = cache.serve(user, channel, write)
    response = {
        "request": request,
        "state": {
            "last_message_id": last_message_id,
            "mention_count": mention_count,
            "last_pin_ts": last_pin_ts,
        },
        "digest": hash((last_message_id, mention_count, last_pin_ts)),
    }
    if number % CYCLE_EVERY == 0:
        request["response"] = response
    return response
