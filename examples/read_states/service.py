"""A process that serves read states, and how it ends: no new requests, flush, exit within a deadline."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import uvicorn
import uvloop
from prometheus_client import REGISTRY, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from read_states import logs
from read_states.app import BODY_MAX, Operations, Service, make_app
from read_states.fleet.member import Member, Rings
from read_states.limits import LimitedServer, Requests, Session
from read_states.options import at_most, seconds
from read_states.rows import open_store, without_options
from read_states.states import SlabStates
from read_states.twin import ObjectStates
from slabcache.prometheus import CacheCollector

__all__ = ["add_arguments", "serve"]

GRACE = 5  # seconds that requests under way get after SIGTERM

log = logging.getLogger("read_states")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=at_most(2**16 - 1), default=8000, help="port to listen at")
    parser.add_argument(
        "--store",
        default="sqlite:read_states.db",
        help="sqlite:PATH or cassandra://HOST,HOST:PORT/KEYSPACE?replication=3",
    )
    parser.add_argument(
        "--cache", choices=["slabcache", "objects"], default="slabcache", help="objects is the twin"
    )
    parser.add_argument("--capacity", type=at_most(2**30), default=1_000_000, help="records in memory")
    parser.add_argument(
        "--max-pending",
        type=at_most(2**30),
        default=20_000,
        help="records that wait for the database besides",
    )
    parser.add_argument(
        "--max-connections",
        type=at_most(2**20),
        default=4000,
        help="with more all are told 503; three quarters of them may be sessions",
    )
    parser.add_argument("--deadline", type=seconds, default=20.0, help="seconds that the last flush gets")
    parser.add_argument(
        "--flush-interval", type=seconds, default=30.0, help="seconds from a change to its commit"
    )
    parser.add_argument("--instance", help="its name in the ring of a fleet; HOST:PORT if not given")
    parser.add_argument(
        "--ring", type=Path, help="a file with the ring: serve the users of this instance alone"
    )


def serve(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; 1 if not all could be saved, 2 if it cannot start."""
    logs.set_up()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    kind = SlabStates if arguments.cache == "slabcache" else ObjectStates
    if arguments.ring and kind is not SlabStates:
        log.error("an instance of a fleet needs --cache slabcache")
        return 2
    try:
        rings = Rings.read(arguments.ring) if arguments.ring else None
        store, store_errors = open_store(arguments.store)
        states = kind(store, arguments.capacity, arguments.max_pending, arguments.flush_interval)
    except Exception as error:
        log.error("cannot start, with the store %s: %s", without_options(arguments.store), error)
        return 2
    operations: Operations = states
    member = None
    if isinstance(states, SlabStates):
        REGISTRY.register(CacheCollector(read_states=states.cache))
        if rings is not None:
            name = arguments.instance or f"{arguments.host}:{arguments.port}"
            operations = member = Member(name, rings, states)
    else:
        REGISTRY.register(TwinCollector(states))
    service = Service(operations, store_errors, arguments.max_connections)
    server = Server(
        uvicorn.Config(
            make_app(service, member.routes(service) if member else []),
            arguments.host,
            arguments.port,
            http=Requests,
            ws=Session,
            log_config=None,
            log_level="warning",
            access_log=False,
            ws_max_size=BODY_MAX,
            ws_per_message_deflate=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE,
        ),
        max_arriving=arguments.max_connections,
    )
    service.count_connections = lambda: server.state.served
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is an open file
    gc.collect()
    gc.freeze()  # modules and routes need not be walked again
    gc.callbacks.append(Pauses())
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server has its own meanwhile, and raises the signal again when it has ended.
        signal.signal(number, lambda *_: None)
    try:
        await server.serve()
    except SystemExit:  # it cannot listen there, and has said so
        return 2
    finally:
        saved = await _close(operations, arguments.deadline)
    if saved and states.refused:
        log.error("the database has refused rows %s times; all else is saved", states.refused)
    elif saved:
        log.info("all is saved")
    return 0 if saved and not states.refused else 1


async def _close(operations: Operations, deadline: float) -> bool:
    """Save what is unsaved; whether all is saved."""
    try:
        await operations.close(deadline)
    except TimeoutError as error:
        log.error("not all could be saved within %s seconds: %s", deadline, error)
        return False
    return True


class Server(LimitedServer):
    """Says when it serves."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("serving on http://%s:%s", self.config.host, self.config.port)


class Pauses:
    """What the garbage collector takes, as a callback of `gc`."""

    def __init__(self) -> None:
        buckets = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
        help_text = "How long the garbage collector stopped the service"
        histogram = Histogram("read_states_gc_pause_seconds", help_text, ["generation"], buckets=buckets)
        self._longest = Gauge("read_states_gc_longest_pause_seconds", "The longest of its pauses")
        self._pauses = [histogram.labels(generation) for generation in range(3)]
        self._longest_yet = 0.0
        self._start = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._start = now
            return
        self._pauses[info["generation"]].observe(now - self._start)
        self._longest_yet = max(self._longest_yet, now - self._start)
        self._longest.set(self._longest_yet)


class TwinCollector(Collector):
    """The figures of the twin, under the names of those of slabcache."""

    def __init__(self, states: ObjectStates) -> None:
        self._states = states

    def collect(self) -> Iterable[Metric]:
        for name in ("hits", "misses", "evictions", "flushed_rows"):
            family = CounterMetricFamily(f"slabcache_{name}", f"{name} of the twin", labels=["cache"])
            family.add_metric(["read_states"], getattr(self._states, name))
            yield family
        for name, value in (("size", len(self._states)), ("dirty", self._states.dirty)):
            gauge = GaugeMetricFamily(f"slabcache_{name}", f"{name} of the twin", labels=["cache"])
            gauge.add_metric(["read_states"], value)
            yield gauge
