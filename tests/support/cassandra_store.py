"""What tests of `CassandraStore` on a real server share; the server is `Node` of tools/cassandra."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException

KEYSPACE = "slabcache_tests"

# What the driver raises. None of them makes a cache give rows up.
TEMPORARY = (DriverException, NoHostAvailable, ConnectionException)

MakeStore = Callable[..., Any]
Result = TypeVar("Result")


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
