"""Stores for `slabcache.WriteBehindCache`: `SQLiteStore`, `CassandraStore`; `Store`, what any other is."""

from slabcache.stores.base import Store

__all__ = ["Store"]
