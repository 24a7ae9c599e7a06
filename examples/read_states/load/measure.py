"""The whole: everything on one machine, and a report of it."""

from __future__ import annotations

import argparse
import asyncio
import bisect
import datetime
import itertools
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import uvloop
from msgspec.structs import replace
from tqdm import tqdm

from measuring.machine import machine
from measuring.turns import in_turn
from read_states.load import in_process
from read_states.load.generator import Recording, connect, quiet_collector, replay, saturate, to_calls
from read_states.load.histograms import histogram_of
from read_states.load.instance import Instance, InstanceError, cores, running, taken
from read_states.load.population import CHANNELS, Population
from read_states.load.results import CacheRun, Conditions, FanOut, Results, Sample, ServiceRun
from read_states.load.schedule import Kind, Request, make_schedule
from read_states.report.page import write_report
from read_states.rows import VALUE, keys_of, open_store

__all__ = ["main"]

CACHES = ("slabcache", "objects")
PACKAGES = ("slabcache", "uvicorn", "starlette", "msgspec", "aiohttp")  # that answer the requests
LABELS = {"slabcache": "slabcache", "objects": "OrderedDict of objects"}
POPULATION = 4  # records in the database for each in the cache
SAMPLE_EVERY = 5.0  # seconds
CLIENTS = 16  # that ask as fast as they get answers
SLICES = 4  # of that, for each contender, taking turns
USERS_SAVED_AT_ONCE = 500


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    capacity: int
    seconds: float
    rate: float
    flush_interval: float
    slice_seconds: float
    entries: int  # of the caches without HTTP
    twin_entries: int
    calls: int


WHOLE = Size(1_000_000, 60, 400, 10, 3, 8_000_000, 2_000_000, 100_000)
QUICK = Size(20_000, 3, 200, 1, 0.5, 400_000, 100_000, 4_000)


def main() -> int:
    """Exit code: 0 when all was measured, whatever the verdicts; 1 when something failed."""
    options = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt: what was started ends, too
    raw, page = options.out / "results.json", options.out / "report.html"
    if not options.redraw:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            _measure(_size(options)).write(raw)
        except (InstanceError, OSError, RuntimeError, ValueError, aiohttp.ClientError) as error:
            print(f"read_states: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("read_states: interrupted", file=sys.stderr)
            return 130
    try:
        results = Results.read(raw)
    except (OSError, msgspec.ValidationError) as error:
        print(f"read_states: {raw} is not there, or of another version: {error}", file=sys.stderr)
        return 1
    print(write_report(results, page))
    print(f"Report: {page}   raw results: {raw}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m read_states.load", description="Read States and its twin under load, and a report."
    )
    parser.add_argument("--quick", action="store_true", help="small, for a check that all works")
    for name, help_text in (
        ("capacity", "records in the memory of the service"),
        ("seconds", "of load on each contender"),
        ("rate", "actions of users a second"),
        ("entries", "records in slabcache without HTTP"),
        ("twin-entries", "records in its twin without HTTP; each takes some 450 bytes"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=help_text)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="build/read-states, or build/read-states-quick with --quick"
    )
    parser.add_argument("--redraw", action="store_true", help="make the report again, of the results there")
    options = parser.parse_args()
    options.out = options.out or Path("build", "read-states-quick" if options.quick else "read-states")
    return options


def _size(options: argparse.Namespace) -> Size:
    size = QUICK if options.quick else WHOLE
    given = {name: value for name in vars(size) if (value := getattr(options, name, None)) is not None}
    return Size(**{**vars(size), **given})


def _measure(size: Size) -> Results:
    chosen = in_process.contenders(size.entries, size.twin_entries, size.calls)
    population = Population(size.capacity * POPULATION // CHANNELS)
    requests = make_schedule(population, size.rate, size.seconds)
    service_core, my_core = cores()
    conditions = Conditions(
        machine(*PACKAGES),
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        shlex.join(["python", "-m", "read_states.load", *sys.argv[1:]]),
        size.capacity,
        population.records,
        population.users,
        size.seconds,
        size.rate,
        len(requests),
        size.flush_interval,
        (service_core, my_core),
        in_process.FLUSH_INTERVAL,
    )
    print(
        f"{population.users:,} users, {population.records:,} records, {size.capacity:,} of them in memory; "
        f"{len(requests):,} requests in {size.seconds:.0f} seconds"
    )
    if my_core is not None:
        os.sched_setaffinity(0, {my_core})
    with tempfile.TemporaryDirectory(prefix="read-states-") as name:
        services = uvloop.run(_services(size, population, requests, Path(name), service_core))
    caches = _caches(chosen, size.calls, service_core)
    return Results(conditions, services, caches)


# ---- behind HTTP -------------------------------------------------------------------------------------------


async def _services(
    size: Size, population: Population, requests: Sequence[Request], folder: Path, core: int | None
) -> dict[str, ServiceRun]:
    """Both contenders are up: load on one after the other, then turns as fast as they can."""
    _make_database(folder / "slabcache.db", population)
    runs = {}
    throughput: dict[str, list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(connect())
        instances: dict[str, Instance] = {}
        for cache in CACHES:
            if cache != "slabcache":
                shutil.copy(folder / "slabcache.db", folder / f"{cache}.db")
        os.sync()  # or the system writes the databases to the disk while the first one is under load
        for cache in CACHES:
            instances[cache] = await stack.enter_async_context(
                running(
                    session,
                    folder / f"{cache}.log",
                    core,
                    cache=cache,
                    store=f"sqlite:{folder / cache}.db",
                    capacity=size.capacity,
                    flush_interval=size.flush_interval,
                )
            )
        for cache, instance in instances.items():
            runs[cache] = await _under_load(cache, instance, session, size, population, requests)
        calls = {cache: itertools.cycle(to_calls(instances[cache].base, requests)) for cache in CACHES}
        with _bar("as fast as they can", SLICES * len(CACHES)) as bar, quiet_collector():
            for _, cache in in_turn(CACHES, SLICES):
                good, seconds = await saturate(session, calls[cache], CLIENTS, size.slice_seconds)
                throughput[cache].append(good / seconds)
                bar.update()
    return {cache: replace(run, throughput=throughput[cache]) for cache, run in runs.items()}


async def _under_load(
    cache: str,
    instance: Instance,
    session: aiohttp.ClientSession,
    size: Size,
    population: Population,
    requests: Sequence[Request],
) -> ServiceRun:
    label = LABELS[cache]
    empty = Sample(0, await instance.metrics())
    users = size.capacity // CHANNELS
    warm = itertools.islice(population.everybody(), population.users - users, None)
    with _bar(f"{label}: filling", users) as bar:
        reads = (Request(0, Kind.BATCH, [user], channels) for user, channels in warm)
        calls = (call for request in reads for call in to_calls(instance.base, [request]))
        await saturate(session, calls, CLIENTS, progress=lambda done: bar.update(done - bar.n))
    ready = to_calls(instance.base, requests)
    due = [request.due for request in requests]
    samples = [Sample(0, await instance.metrics())]

    async def sample() -> None:
        for at in np.arange(SAMPLE_EVERY, size.seconds, SAMPLE_EVERY).tolist():  # one more comes at the end
            await asyncio.sleep(SAMPLE_EVERY)
            samples.append(Sample(at, await instance.metrics()))

    with _bar(f"{label}: under load", len(requests)) as bar, quiet_collector():
        sampling = asyncio.create_task(sample())
        before = [taken(pid) for pid in (instance.pid, os.getpid())]
        recording = await replay(session, ready, due, lambda done: bar.update(done - bar.n))
        sampling.cancel()
        bar.update(len(requests) - bar.n)
    theirs, mine = (
        max(0.0, taken(pid) - then) / size.seconds
        for pid, then in zip((instance.pid, os.getpid()), before, strict=True)
    )
    samples.append(Sample(size.seconds, await instance.metrics()))
    await instance.saved(size.flush_interval + 20)
    return _to_run(requests, recording, (theirs, mine), empty, samples)


def _to_run(
    requests: Sequence[Request],
    recording: Recording,
    shares: tuple[float, float],
    empty: Sample,
    samples: list[Sample],
) -> ServiceRun:
    asked = np.cumsum([0, *(len(request.users) * len(request.channels) for request in requests)])
    due = [request.due for request in requests]
    latency = (recording.done - recording.due).tolist()
    seconds: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    fan_outs: dict[int, list[int]] = defaultdict(list)
    for request, nanoseconds in zip(requests, latency, strict=True):
        seconds[int(request.due)][request.kind].append(nanoseconds)
        if request.fan_out >= 0:
            fan_outs[request.fan_out].append(nanoseconds)
    return ServiceRun(
        timeline=[
            {kind: histogram_of(values) for kind, values in seconds[second].items()}
            for second in range(max(seconds) + 1)
        ],
        lag=histogram_of((recording.sent - recording.due).tolist()),
        taken=shares,
        failures=Counter(str(status) for status in recording.status.tolist() if status != 200),
        fan_outs=[FanOut(len(calls), max(calls)) for calls in fan_outs.values()],
        empty=empty,
        samples=[replace(sample, asked=int(asked[bisect.bisect_left(due, sample.at)])) for sample in samples],
        throughput=[],
    )


def _make_database(path: Path, population: Population) -> None:
    """All records, through the store that the service uses, in the order of their keys."""
    store, _ = open_store(f"sqlite:{path}")
    everybody = sorted(population.everybody())
    with _bar("the database", population.records) as bar:
        for begin in range(0, len(everybody), USERS_SAVED_AT_ONCE):
            some = everybody[begin : begin + USERS_SAVED_AT_ONCE]
            keys = keys_of(
                np.repeat([user for user, _ in some], CHANNELS),
                np.ravel([sorted(channels) for _, channels in some]),
            )
            values = np.zeros(len(keys), VALUE)
            values["last_message_id"] = keys["channel_id"] // 8
            store.save_many(keys, values)
            bar.update(len(keys))
    store.close()


# ---- without HTTP ------------------------------------------------------------------------------------------


def _caches(chosen: Sequence[in_process.Contender], calls: int, core: int | None) -> dict[str, CacheRun]:
    bars: dict[str, tqdm[None]] = {}

    def advance(name: str, more: int) -> None:
        if name not in bars:
            contender = next(contender for contender in chosen if contender.name == name)
            bars[name] = _bar(f"in process: {contender.label}", contender.entries + calls)
        bars[name].update(more)

    runs = in_process.measure(chosen, calls, core, advance)
    for bar in bars.values():
        bar.close()
    return runs


def _bar(label: str, total: int) -> tqdm[None]:
    bar = tqdm(
        total=total,
        desc=label.ljust(42),
        bar_format="{desc} {bar:30} {percentage:3.0f} %  {elapsed}",
        disable=None,  # no bar where there is no terminal
    )
    if bar.disable:
        print(label, flush=True)
    return bar
