"""Faults of a Cassandra server: it is killed, and it stands still.

The server is one as `make cassandra` starts it, in a folder of its own.
"""

from __future__ import annotations

import functools
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .load import KEY, NO_FAULT, PREFIX, VALUE, Load, Row, fill_cold, lasting, open_cache, say
from .report import Line

__all__ = ["FAULTS"]

TOOL = Path(__file__).parent.parent / "tools" / "cassandra"
KEYSPACE = "slabcache_faults"
REQUEST_TIMEOUT = 1.0  # seconds
KEPT_IN_ORDER = "no acknowledged row is lost, no late request overwrites a newer row"


class Node:
    """A server of our own, in a folder that goes with it."""

    def __enter__(self) -> Node:
        self.home = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.run("start")
        return self

    def __exit__(self, *_: object) -> None:
        self.run("stop")
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, command: str) -> None:
        """One of tools/cassandra; `start` returns when the server serves."""
        subprocess.run([sys.executable, str(TOOL), command, "--home", str(self.home)], check=True)

    @property
    def facts(self) -> dict[str, Any]:
        """Among them `host`, `port` and `version`."""
        return dict(json.loads((self.home / "node.json").read_text()))


def open_store(node: Node, request_timeout: float = REQUEST_TIMEOUT) -> Any:
    from slabcache.stores import CassandraStore

    facts = node.facts
    where = {"hosts": facts["host"], "port": facts["port"], "keyspace": KEYSPACE, "table": "states"}
    made = {"create": True, "replication": 1}
    return CassandraStore(**where, **made, key=KEY, value=VALUE, request_timeout=request_timeout)


def contents(node: Node) -> dict[int, Row]:
    """What the server has, over a connection of its own."""
    from cassandra.cluster import Cluster

    facts = node.facts
    with Cluster([facts["host"]], port=facts["port"], protocol_version=4) as cluster:
        rows = cluster.connect().execute(f"SELECT key, number, count FROM {KEYSPACE}.states", timeout=60)
        return {key: (number, count) for key, number, count in rows}


def run(
    begin: str, end: str, seconds: float, name: str, done: str, killed_after: bool = False
) -> Line | None:
    """The fault begins with one command for the server, and ends with the other."""
    if not available():
        return None
    with Node() as node:
        fill_cold(open_store(node, 60.0))  # a server is slow when it has just started
        with open_cache(open_store(node)) as cache, Load(cache) as load:
            time.sleep(2.0)
            with load.faulty():
                node.run(begin)
                load.endure(seconds)
                node.run(end)
            if killed_after:
                node.run("kill")
                node.run("start")
            stats = cache.stats()
        stored = contents(node)
        name = f"Cassandra {node.facts['version']}: {name}"
    broken = [] if stats.flush_errors and stats.last_error is not None else [NO_FAULT]
    return load.line(name, done, KEPT_IN_ORDER, stored, broken=broken)


def killed(quick: bool) -> Line | None:
    seconds = lasting(quick, 5.0)
    done = (
        f"`SIGKILL` of the server in the middle of flushes, started again after {seconds:g} s; "
        "killed once more as soon as the last `flush()` has returned"
    )
    return run("kill", "start", seconds, "server killed", done, killed_after=True)


def halted(quick: bool) -> Line | None:
    seconds = 4.0 if quick else 10.0
    done = f"`SIGSTOP` for {seconds:g} s, with a request timeout of {REQUEST_TIMEOUT:g} s, then `SIGCONT`"
    return run("halt", "resume", seconds, "server stands still", done)


@functools.cache
def available() -> bool:
    """Whether there is a driver and what a server takes; if not, that is said in a line."""
    try:
        importlib.import_module("slabcache.stores.cassandra")
    except ImportError as error:
        say(f"Cassandra is left out: {error}")
        return False
    return subprocess.run([sys.executable, str(TOOL), "check"], check=False).returncode == 0


FAULTS = (killed, halted)
