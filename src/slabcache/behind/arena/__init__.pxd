"""The bytes of a cache before a store."""
