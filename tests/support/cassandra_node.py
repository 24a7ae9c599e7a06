"""The Cassandra server of `make cassandra`, for tests: started, killed, halted and brought back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException

ROOT = Path(__file__).parent.parent.parent
KEYSPACE = "slabcache_tests"

# What the driver raises. None of them makes a cache give rows up.
TEMPORARY = (DriverException, NoHostAvailable, ConnectionException)

MakeStore = Callable[..., Any]
Result = TypeVar("Result")


class Node:
    """The node of a folder below build/. Whatever happens to it, it keeps its port and its data."""

    def __init__(self, name: str, *options: str) -> None:
        self.home = ROOT / "build" / name
        self.options = options

    def _tool(self, command: str) -> int:
        arguments = [command, "--home", str(self.home), *self.options]
        return subprocess.run([sys.executable, str(ROOT / "tools" / "cassandra"), *arguments]).returncode

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.home / "node.json").read_text())

    @property
    def address(self) -> dict[str, Any]:
        """Where it listens, as options of a store."""
        return {"hosts": self.facts["host"], "port": self.facts["port"]}

    def running(self) -> bool:
        return self._tool("status") == 0

    def start(self) -> None:
        """Returns when it serves; at once if it does."""
        assert self._tool("start") == 0

    def stop(self) -> None:
        assert self._tool("stop") == 0

    def kill(self) -> None:
        """Without warning."""
        self._tool("kill")

    def halt(self) -> None:
        """It keeps its connections and takes what is sent, but does nothing."""
        assert self._tool("halt") == 0

    def resume(self) -> None:
        self._tool("resume")


def patiently(call: Callable[[], Result]) -> Result:
    """Again and again while it raises, as a service would; gives up after so many times."""
    for _ in range(300):
        try:
            return call()
        except Exception as error:
            last = error
            time.sleep(0.1)
    raise last


def execute(store: Any, statement: str) -> list[tuple[Any, ...]]:
    """The rows of any statement, by the session of a `CassandraStore`."""
    return list(store._shared.open().session.execute(statement))
