"""Faults of a Cassandra server: it is killed, and it stands still.

The server is one as `make cassandra` starts it, in a folder of its own.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tools.cassandra.node import Node, NodeError, check

from .load import COLD, KEY, VALUE, Load, open_cache, say
from .report import Line

__all__ = ["FAULTS"]

KEYSPACE = "slabcache_faults"
REQUEST_TIMEOUT = 1.0  # seconds
NOTHING_LOST = "no acknowledged row is lost, no late request overwrites a newer row"


@contextmanager
def started() -> Iterator[Node]:
    """A server of our own, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="slabcache-faults-", ignore_cleanup_errors=True) as home:
        node = Node(Path(home))
        try:
            node.start()
            yield node
        finally:
            node.stop()


def open_store(node: Node) -> Any:
    from slabcache.stores import CassandraStore

    where = {**node.address(), "keyspace": KEYSPACE, "table": "states"}
    made = {"create": True, "replication": 1}
    return CassandraStore(**where, **made, key=KEY, value=VALUE, request_timeout=REQUEST_TIMEOUT)


def fill_cold(node: Node) -> None:
    """Give the server the rows that only it has."""
    with closing(open_store(node)) as store:
        keys = np.array(COLD, store.key_dtype)
        values = np.zeros(len(keys), store.value_dtype)
        values["number"] = keys
        store.save_many(keys, values)


def contents(node: Node) -> dict[int, tuple[int, int]]:
    """What the server has, over a connection of its own."""
    from cassandra.cluster import Cluster

    facts = node.facts()
    with Cluster([facts["host"]], port=facts["port"], protocol_version=4) as cluster:
        rows = cluster.connect().execute(f"SELECT key, number, count FROM {KEYSPACE}.states", timeout=60)
        return {key: (number, count) for key, number, count in rows}


def run(
    fault: Callable[[Node, Load, float], None], seconds: float, name: str, done: str, killed_after: bool
) -> Line | None:
    if not available():
        return None
    with started() as node:
        fill_cold(node)
        with open_cache(open_store(node)) as cache, Load(cache) as load:
            time.sleep(2.0)
            with load.faulty():
                fault(node, load, seconds)
            if killed_after:
                node.kill()
                node.start()
            stats = cache.stats()
        stored = contents(node)
        name = f"Cassandra {node.facts()['version']}: {name}"
    broken = load.broken(stored)
    if not stats.flush_errors or stats.last_error is None:
        broken.append("the store never failed: there was no fault")
    lost, reads = len(load.lost(stored)), load.reads_meanwhile()
    return Line(name, done, NOTHING_LOST, load.acknowledged(), lost, reads, load.recovered, broken=broken)


def kill(node: Node, load: Load, seconds: float) -> None:
    node.kill()
    load.fault_begins()
    time.sleep(seconds)
    load.fault_ends()
    node.start()


def killed(quick: bool) -> Line | None:
    seconds = 2.0 if quick else 5.0
    done = (
        f"`SIGKILL` of the server in the middle of flushes, started again after {seconds:g} s; "
        "killed once more as soon as the last `flush()` has returned"
    )
    return run(kill, seconds, "server killed", done, killed_after=True)


def halt(node: Node, load: Load, seconds: float) -> None:
    node.halt()
    load.fault_begins()
    time.sleep(seconds)
    load.fault_ends()
    node.resume()


def halted(quick: bool) -> Line | None:
    seconds = 4.0 if quick else 10.0
    done = f"`SIGSTOP` for {seconds:g} s, with a request timeout of {REQUEST_TIMEOUT:g} s, then `SIGCONT`"
    return run(halt, seconds, "server stands still", done, killed_after=False)


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
