"""The bytes of a cache."""
