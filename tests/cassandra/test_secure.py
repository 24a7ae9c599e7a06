"""Credentials and TLS, on a server that asks for both."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import numpy as np
import pytest
from cassandra.cluster import NoHostAvailable

from slabcache.stores import CassandraStore
from support.cassandra_store import KEYSPACE, patiently
from tools.cassandra.node import HOME, Node


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node(HOME.with_name("cassandra-secure"), secure=True)
    node.start()
    yield node
    node.stop()


def connect(node: Node, password: str, tls: ssl.SSLContext | None) -> CassandraStore:
    return CassandraStore(
        **node.address(),
        keyspace=KEYSPACE,
        table="secure",
        key="u8",
        value="u8",
        create=True,
        replication=1,
        username="cassandra",
        password=password,
        tls=tls,
    )


def test_credentials_and_tls(node: Node) -> None:
    trusted = ssl.create_default_context(cafile=node.home / "server.pem")
    # The server creates its first user a moment after it has begun to serve.
    store = patiently(lambda: connect(node, "cassandra", trusted))
    key = np.array([2**64 - 1], "u8")
    store.save_many(key, key)
    assert store.load_many(key)[0].tolist() == [2**64 - 1]
    assert "cassandra" not in repr(store).replace("CassandraStore", "")
    store.close()

    with pytest.raises(NoHostAvailable, match="password"):
        connect(node, "wrong", trusted)
    with pytest.raises(NoHostAvailable, match="certificate"):
        connect(node, "cassandra", ssl.create_default_context())
