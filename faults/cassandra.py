"""Faults of a Cassandra server: it is killed, and it stands still.

The server is one as `make cassandra` starts it, in a folder of its own.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.cassandra.node import Node, NodeError, check

from .load import KEY, NO_FAULT, PREFIX, VALUE, Load, Row, fill_cold, lasting, open_cache, say
from .report import Line

__all__ = ["FAULTS"]

Command = Callable[[Node], None]

KEYSPACE = "slabcache_faults"
REQUEST_TIMEOUT = 1.0  # seconds
KEPT_IN_ORDER = "no acknowledged row is lost, no late request overwrites a newer row"


@contextmanager
def started() -> Iterator[Node]:
    """A server of our own, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as home:
        node = Node(Path(home))
        try:
            node.start()
            yield node
        finally:
            node.stop()


def open_store(node: Node, request_timeout: float = REQUEST_TIMEOUT) -> Any:
    from slabcache.stores import CassandraStore

    where = {**node.address(), "keyspace": KEYSPACE, "table": "states"}
    made = {"create": True, "replication": 1}
    return CassandraStore(**where, **made, key=KEY, value=VALUE, request_timeout=request_timeout)


def contents(node: Node) -> dict[int, Row]:
    """What the server has, over a connection of its own."""
    from cassandra.cluster import Cluster

    facts = node.facts()
    with Cluster([facts["host"]], port=facts["port"], protocol_version=4) as cluster:
        rows = cluster.connect().execute(f"SELECT key, number, count FROM {KEYSPACE}.states", timeout=60)
        return {key: (number, count) for key, number, count in rows}


def run(
    begin: Command, end: Command, seconds: float, name: str, done: str, killed_after: bool = False
) -> Line | None:
    """The fault begins with one command for the server, and ends with the other."""
    if not available():
        return None
    with started() as node:
        fill_cold(open_store(node, 60.0))  # a server is slow when it has just started
        with open_cache(open_store(node)) as cache, Load(cache) as load:
            time.sleep(2.0)
            with load.faulty():
                begin(node)
                load.endure(seconds)
                end(node)
            if killed_after:
                node.kill()
                node.start()
            stats = cache.stats()
        stored = contents(node)
        name = f"Cassandra {node.facts()['version']}: {name}"
    broken = [] if stats.flush_errors and stats.last_error is not None else [NO_FAULT]
    return load.line(name, done, KEPT_IN_ORDER, stored, broken=broken)


def killed(quick: bool) -> Line | None:
    seconds = lasting(quick, 5.0)
    done = (
        f"`SIGKILL` of the server in the middle of flushes, started again after {seconds:g} s; "
        "killed once more as soon as the last `flush()` has returned"
    )
    return run(Node.kill, Node.start, seconds, "server killed", done, killed_after=True)


def halted(quick: bool) -> Line | None:
    seconds = 4.0 if quick else 10.0
    done = f"`SIGSTOP` for {seconds:g} s, with a request timeout of {REQUEST_TIMEOUT:g} s, then `SIGCONT`"
    return run(Node.halt, Node.resume, seconds, "server stands still", done)


@functools.cache
def available() -> bool:
    """Whether there is a driver and what a server takes; if not, that is said in a line."""
    try:
        importlib.import_module("slabcache.stores.cassandra")
        check()
    except (ImportError, NodeError) as error:
        say(f"Cassandra is left out: {error}")
        return False
    return True


FAULTS = (killed, halted)
