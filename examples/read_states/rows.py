"""What a record is, and which database holds it."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from slabcache.stores import SQLiteStore
from slabcache.stores.base import Store

__all__ = ["KEY", "VALUE", "ZEROS", "keys_of", "open_store", "without_options"]

KEY = np.dtype([("user_id", "u8"), ("channel_id", "u8")])
VALUE = np.dtype([("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u4")])
ZEROS = (0, 0, 0)  # of a channel never seen


def keys_of(users: Any, channels: Any) -> np.ndarray[Any, Any]:
    """Keys of one user in many channels, or of many users in one."""
    keys = np.empty(np.broadcast(users, channels).shape, KEY)
    keys["user_id"] = users
    keys["channel_id"] = channels
    return keys


def open_store(url: str) -> tuple[Store, tuple[type[Exception], ...]]:
    """A database by its URL, and what it raises when it is down.

    `sqlite:PATH`, or `cassandra://HOST,HOST:PORT/KEYSPACE?replication=3`; also `consistency`, `username`,
    `password` and `datacenter`, as `CassandraStore` takes them. Everybody on the machine sees a command line:
    the environment variable CASSANDRA_PASSWORD is a better place for a password.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(
            "a user stands in ?username=, the password in CASSANDRA_PASSWORD, none before the host"
        )
    if parts.scheme == "sqlite":
        import sqlite3

        return SQLiteStore(parts.path, table="read_states", key=KEY, value=VALUE), (sqlite3.Error, OSError)
    if parts.scheme == "cassandra":
        from cassandra import DriverException, OperationTimedOut, RequestExecutionException
        from cassandra.cluster import NoHostAvailable

        from slabcache.stores import CassandraStore

        hosts, _, port = parts.netloc.partition(":")
        options = dict(parse_qsl(parts.query))
        username = options.get("username")
        store = CassandraStore(
            hosts.split(","),
            port=int(port or 9042),
            keyspace=parts.path.strip("/"),
            table="read_states",
            key=KEY,
            value=VALUE,
            create=True,
            replication=int(options.get("replication", 1)),
            consistency=options.get("consistency", "LOCAL_QUORUM"),
            username=username,
            password=options.get("password", os.environ.get("CASSANDRA_PASSWORD") if username else None),
            datacenter=options.get("datacenter"),
        )
        down = (DriverException, NoHostAvailable, OperationTimedOut, RequestExecutionException, OSError)
        return store, down
    raise ValueError(
        f"store must be sqlite:PATH or cassandra://HOST:PORT/KEYSPACE, not {without_options(url)!r}"
    )


def without_options(url: str) -> str:
    """To be shown: there may be a password among them, or before the host."""
    return re.sub(r"(?<=//)[^/]*@", "", re.split(r"[?#]", url)[0])
