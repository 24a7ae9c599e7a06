"""Stores for `slabcache.WriteBehindCache`: `SQLiteStore`, and `Store`, which any other class can be."""

from slabcache.stores.base import Store
from slabcache.stores.sqlite import SQLiteStore

__all__ = ["SQLiteStore", "Store"]
