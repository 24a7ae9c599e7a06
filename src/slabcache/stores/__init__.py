"""Stores for `WriteBehindCache`: `SQLiteStore`, `CassandraStore`, and `Store`, the protocol of any other.

    base          the protocol: what a store must provide, and may not do
    columns       from dtypes to the columns of a table, and whole batches between the two
    table_store   what stores with such columns share
    calls         which calls of a store are under way, known without a lock
    sqlite*       SQLite: the store, its table, its connections, one of them, its log
    cassandra*    Cassandra: the store, its cluster, table, session and connections; `timestamps` are for it

A store knows no cache. It holds no lock of Python's while Python code runs, and uses nothing in the child
of a fork that its parent has opened. For another database only the protocol counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slabcache.stores.base import Store
from slabcache.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from slabcache.stores.cassandra import CassandraStore as CassandraStore

__all__ = ["SQLiteStore", "Store"]  # not CassandraStore: `import *` would fail where there is no driver


def __getattr__(name: str) -> Any:
    """Stores whose drivers are imported when they are first asked for."""
    if name == "CassandraStore":
        from slabcache.stores.cassandra import CassandraStore

        return CassandraStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
