"""The counters of a cache at one moment."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Stats"]


class Stats(NamedTuple):
    """Counts since construction or `reset_stats()`, and the size of the cache.

    >>> from slabcache import SlabCache
    >>> cache = SlabCache(8, key="u8", value="u8")
    >>> cache[1] = 10
    >>> cache.get(1), cache.get(2)
    (10, None)
    >>> cache.stats()
    Stats(hits=1, misses=1, insertions=1, updates=0, deletions=0, evictions=0, size=1, capacity=8)
    """

    hits: int  # look-ups that found their key
    misses: int  # look-ups that did not
    insertions: int  # entries created
    updates: int  # writes to an entry that was there
    deletions: int  # entries removed by the user
    evictions: int  # entries removed to make room
    size: int  # entries now
    capacity: int  # entries at most

    @property
    def hit_ratio(self) -> float:
        """Hits among all look-ups; 0.0 before the first."""
        looked_up = self.hits + self.misses
        return self.hits / looked_up if looked_up else 0.0
