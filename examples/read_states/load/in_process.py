"""The part of the cache alone: the operations of the service, called without HTTP, amid a service's garbage.

Three contenders take turns, each in a process of its own: slabcache full, slabcache all but empty, and the
twin. What disturbs the machine meets all of them, and no collector walks what belongs to another. What is
asked for is in memory, in all of them: waiting for the database is not measured here. But a full cache was
filled by a scan first, and goes on with it between the calls, so it evicts as many records as it loads.
"""

from __future__ import annotations

import asyncio
import gc
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np

from measuring.collector import CollectorLog
from measuring.memory import resident_bytes
from measuring.processes import Worker
from measuring.stores import VoidStore
from measuring.turns import in_turn
from read_states.app import Operations
from read_states.load.histograms import histogram_of
from read_states.load.population import CHANNELS, GUILD, Population
from read_states.load.results import CacheRun
from read_states.load.schedule import MIX, Kind, Request, make_schedule
from read_states.rows import KEY, VALUE
from read_states.states import SlabStates
from read_states.twin import ObjectStates

__all__ = ["FLUSH_INTERVAL", "Contender", "contenders", "measure"]

TURNS = 20
SCAN_EVERY = 100  # calls
SCAN = 1000  # records that nobody asked for before: as many are evicted, those of the scans before the run
BATCH = 2800  # responses on their way out at a time, as in the demo: a dozen young collections
CYCLE_EVERY = 64  # requests: one that leaves a reference cycle behind
# Calls without a pause between them change far more in a second than those of a service: after ten seconds a
# tenth of the records were unsaved at a time, more on a faster machine. Like this some 4 % are; of those of
# an instance of the story 0.5 %.
FLUSH_INTERVAL = 1.0
MAX_PENDING = 20_000  # as the service has it
WARM_ENTRIES = 80_000  # more than two batches of calls write to

#: Without fan-outs, whose calls are reads like others.
CALLS: dict[Kind, float] = {kind: share for kind, share in MIX.items() if kind is not Kind.CALL}

Progress = Callable[[str, int], object]


@dataclass(frozen=True)
class Contender:
    """A cache, and what is in it when the calls begin; `scanned` records of it are there to be evicted."""

    name: str
    label: str
    cache: str
    capacity: int
    users: int
    scanned: int

    @property
    def entries(self) -> int:
        return self.users * CHANNELS + self.scanned


def contenders(entries: int, twin_entries: int, calls: int) -> list[Contender]:
    scanned = -(-calls // SCAN_EVERY) * SCAN
    users, twin_users = ((count - scanned) // CHANNELS for count in (entries, twin_entries))
    if min(users, twin_users) < GUILD:
        raise ValueError(f"without HTTP at least {scanned + GUILD * CHANNELS:,} records are needed")
    return [
        Contender("empty", "slabcache, all but empty", "slabcache", entries, GUILD, 0),
        Contender("full", "slabcache, full", "slabcache", entries, users, scanned),
        Contender("twin", "OrderedDict of objects, full", "objects", twin_entries, twin_users, scanned),
    ]


class Ready(VoidStore):
    """A database that has every row, gives it at once, and keeps none that is saved."""

    def __init__(self) -> None:
        super().__init__(KEY, VALUE)
        self.loads = 0

    def load_many(self, keys: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        self.loads += 1
        values = np.zeros(len(keys), VALUE)
        values["last_message_id"] = keys["channel_id"] // 8
        return values, np.ones(len(keys), np.bool_)


def measure(
    chosen: Sequence[Contender], calls: int, core: int | None, progress: Progress
) -> dict[str, CacheRun]:
    """Fill all, then let them take turns; `progress` gets a name, and how much more of it is done."""
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for contender in chosen:
            worker = stack.enter_context(Worker(contender.label, _run, contender, calls, core))
            workers[contender.name] = worker
            while (filled := worker.receive()) is not None:
                progress(contender.name, filled)
        for _, (name, worker) in in_turn(list(workers.items()), TURNS):
            worker.pipe.send(True)
            progress(name, worker.receive())
        for worker in workers.values():
            worker.pipe.send(False)
        return {name: worker.receive() for name, worker in workers.items()}


# ---- in the child ------------------------------------------------------------------------------------------


def _run(pipe: Connection, contender: Contender, calls: int, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    asyncio.run(_measure(contender, calls, pipe))


async def _measure(contender: Contender, calls: int, pipe: Connection) -> None:
    population = Population(contender.users)
    requests = make_schedule(population, calls, 1, mix=CALLS)
    kind = SlabStates if contender.cache == "slabcache" else ObjectStates
    await _warm_up(kind, requests[: 2 * BATCH])
    gc.collect()
    gc.freeze()  # as the service does
    store = Ready()
    resident, tracked = resident_bytes(), len(gc.get_objects())
    states = kind(store, contender.capacity, MAX_PENDING, FLUSH_INTERVAL)
    for channels in scans(0, contender.scanned):
        await states.read_many(0, channels)
        pipe.send(len(channels))
    for number, (user, channels) in enumerate(population.everybody(), 1):
        await states.read_many(user, channels)
        if number % 1000 == 0:
            pipe.send(1000 * CHANNELS)
    gc.collect()
    filled, tracked = resident_bytes() - resident, len(gc.get_objects()) - tracked
    pipe.send(None)

    watch = Watch(states, store, scans(contender.scanned, 2 * contender.scanned))
    step = -(-len(requests) // TURNS)
    for begin in range(0, len(requests), step):
        assert pipe.recv()
        await watch.turn(requests[begin : begin + step])
        pipe.send(step)
    growth = resident_bytes() - resident
    while pipe.recv():
        pipe.send(0)
    pipe.send(
        CacheRun(
            contender.label,
            contender.entries,
            filled,
            growth,
            tracked,
            [histogram_of(times) for times in watch.working],
            [histogram_of(times) for times in watch.elapsed],
            watch.loaded,
            watch.collections.pauses(),
        )
    )
    await states.close()


async def _warm_up(kind: Callable[..., Operations], requests: Sequence[Request]) -> None:
    """Take the memory that calls need whatever the cache holds: it is not the cache's."""
    store = Ready()
    states = kind(store, WARM_ENTRIES, MAX_PENDING, FLUSH_INTERVAL)
    await Watch(states, store, iter(())).turn(requests)
    await states.close()


def scans(begin: int, end: int) -> Iterator[list[int]]:
    """Channels of a user who looks into each once, SCAN of them at a time."""
    for first in range(begin, end, SCAN):
        yield list(range(first, first + SCAN))


class Watch:
    """Makes calls, and notes the time of each and of the collector."""

    def __init__(self, states: Operations, store: Ready, scanning: Iterator[list[int]]) -> None:
        self.working: list[array[int]] = []  # by turn
        self.elapsed: list[array[int]] = []
        self.loaded = 0
        self.collections = CollectorLog()
        self._states = states
        self._store = store
        self._scanning = scanning
        self._calls = 0
        self._batch: list[Any] = []
        self._complete: list[Any] = []

    async def turn(self, requests: Sequence[Request]) -> None:
        self.working.append(array("q"))
        self.elapsed.append(array("q"))
        with self.collections:
            await self._make_calls(requests)

    async def _make_calls(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if self._calls % SCAN_EVERY == 0:
                await asyncio.sleep(0)  # the twin writes behind in this loop
                if scan := next(self._scanning, None):
                    await self._states.read_many(0, scan)
            self._calls += 1
            loads = self._store.loads
            elapsed, working = perf_counter_ns(), thread_time_ns()
            answer = await _call(self._states, request)
            working, elapsed = thread_time_ns() - working, perf_counter_ns() - elapsed
            if self._store.loads > loads:
                self.loaded += 1
            else:
                self.working[-1].append(working)
                self.elapsed[-1].append(elapsed)
            self._respond(self._calls, request, answer)

    def _respond(self, number: int, request: Request, answer: Any) -> None:
        """What a service makes for a request, and keeps until a batch of responses is written."""
        asked = {
            "id": number,
            "key": [request.users[0], request.channels[0]],
            "headers": {"kind": request.kind},
        }
        response = {"request": asked, "state": {"answer": answer}}
        if number % CYCLE_EVERY == 0:
            asked["response"] = response
        self._batch.append(response)
        del self._complete[-8:]
        if len(self._batch) >= BATCH:
            self._complete, self._batch = self._batch, self._complete


def _call(states: Operations, request: Request) -> Any:
    user, channel = request.users[0], request.channels[0]
    match request.kind:
        case Kind.READ:
            return states.read(user, channel)
        case Kind.ACK:
            return states.ack(user, channel, request.number)
        case Kind.PIN:
            return states.pin(user, channel, request.number)
        case Kind.BATCH:
            return states.read_many(user, request.channels)
        case Kind.MENTION:
            return states.mention(channel, request.users, 1)
    raise ValueError(request.kind)
