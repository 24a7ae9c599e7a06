"""A real server for these tests, and stores in tables of their own.

Run by `make test-cassandra`, and by nothing else: there is no server without Java and Maven.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from cassandra.cluster import Cluster

from read_states.fleet.gateway import NO_NGINX, find_nginx
from slabcache.stores import CassandraStore
from support.cassandra_store import KEYSPACE, MakeStore
from tools.cassandra.node import Node

READ_STATES = "slabcache_read_states"

collect_ignore = [] if find_nginx() else ["test_read_states_fleet.py"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if collect_ignore:
        terminalreporter.write_line(f"{NO_NGINX}; a fleet is not tested without it")


def drop(keyspace: str, node: Node) -> None:
    facts = node.facts()
    with Cluster([facts["host"]], port=facts["port"], protocol_version=4) as cluster:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=None)


@pytest.fixture(scope="session")
def server() -> Iterator[Node]:
    """Serves for the whole run. If it served before, it goes on afterwards."""
    node = Node()
    was_there = node.pid() is not None
    node.start()
    drop(KEYSPACE, node)
    yield node
    if not was_there:
        node.stop()


@pytest.fixture
def node(server: Node) -> Iterator[Node]:
    """The server for a test that harms it: healthy again for the next one."""
    yield server
    server.resume()
    server.start()


@pytest.fixture(scope="session")
def table_names() -> Iterator[str]:
    return (f"t{number}" for number in itertools.count())


@pytest.fixture
def make_store(server: Node, table_names: Iterator[str]) -> Iterator[MakeStore]:
    """Makes stores, each with a new table unless one is named."""
    stores = []

    def make(key: Any = "u8", value: Any = "u8", **options: Any) -> CassandraStore:
        if "table" not in options:
            options = {"table": next(table_names), "create": True, "replication": 1, **options}
        options = {"keyspace": KEYSPACE, **server.address(), **options}
        stores.append(CassandraStore(key=key, value=value, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def url(server: Node) -> str:
    """Of an empty store for Read States."""
    drop(READ_STATES, server)
    return server.url(READ_STATES)
