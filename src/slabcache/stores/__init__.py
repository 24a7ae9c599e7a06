"""Stores for `WriteBehindCache`: `SQLiteStore`, `CassandraStore`, and `Store`, which any other can be."""

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
