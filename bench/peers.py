"""The caches that are compared, one small adapter each.

An adapter's `read` and `write` are the loops themselves, written as a user of that cache would write them, so
that no call of the adapter stands between the clock and the cache. All but the OrderedDict of objects and
slabcache keep flat tuples of integers, the best that ordinary Python values can be: the collector stops
tracking them once it has seen them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from .workload import KEY, VALUE, Rows


class Peer(ABC):
    """One cache of `capacity` entries. The methods take columns of equal length, one item for each row."""

    label: ClassVar[str]
    package: ClassVar[str | None]  # the distribution to name in the report; None for the standard library
    choose_when: ClassVar[str]  # when it is the better choice

    @abstractmethod
    def __init__(self, capacity: int) -> None: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, users: list[int], channels: list[int]) -> None:
        """Look up keys that are all there, and read one field of each value."""

    @abstractmethod
    def write(
        self, users: list[int], channels: list[int], messages: list[int], mentions: list[int], pins: list[int]
    ) -> None:
        """Write entries that are not there."""


class LruCachePeer(Peer):
    """functools.lru_cache has no write: a miss calls the function, whose result it keeps."""

    label = "functools.lru_cache"
    package = None
    choose_when = "results of a function are to be remembered; any hashable arguments, any result"

    def __init__(self, capacity: int) -> None:
        self.value = 0, 0, 0

        @lru_cache(maxsize=capacity)
        def load(user: int, channel: int) -> tuple[int, int, int]:  # noqa: ARG001 - the key
            return self.value

        self.load = load

    def __len__(self) -> int:
        return self.load.cache_info().currsize

    def read(self, users: list[int], channels: list[int]) -> None:
        load = self.load
        misses = load.cache_info().misses
        for user, channel in zip(users, channels, strict=True):
            load(user, channel)[1]
        if load.cache_info().misses != misses:
            raise KeyError("a key that must be there is not")

    def write(
        self, users: list[int], channels: list[int], messages: list[int], mentions: list[int], pins: list[int]
    ) -> None:
        load = self.load
        for user, channel, message, mention, pin in zip(
            users, channels, messages, mentions, pins, strict=True
        ):
            self.value = message, mention, pin
            load(user, channel)


@dataclass
class ReadState:
    """A record as services write it: an ordinary object."""

    last_message_id: int
    mention_count: int
    last_pin_ts: int


class ObjectsPeer(Peer):
    """The LRU that people write by hand: an OrderedDict from (user, channel) to an object."""

    label = "OrderedDict of objects"
    package = None
    choose_when = "entries are mutable objects with methods; you want the same object back"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.cache: OrderedDict[tuple[int, int], ReadState] = OrderedDict()

    def __len__(self) -> int:
        return len(self.cache)

    def read(self, users: list[int], channels: list[int]) -> None:
        cache = self.cache
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            cache[key].mention_count  # noqa: B018 - what is timed
            cache.move_to_end(key)

    def write(
        self, users: list[int], channels: list[int], messages: list[int], mentions: list[int], pins: list[int]
    ) -> None:
        cache, capacity = self.cache, self.capacity
        for user, channel, message, mention, pin in zip(
            users, channels, messages, mentions, pins, strict=True
        ):
            cache[user, channel] = ReadState(message, mention, pin)
            if len(cache) > capacity:
                cache.popitem(last=False)


class MappingPeer(Peer):
    """What the caches share that are mappings and evict by themselves."""

    cache: Any

    def __len__(self) -> int:
        return len(self.cache)

    def read(self, users: list[int], channels: list[int]) -> None:
        cache = self.cache
        for user, channel in zip(users, channels, strict=True):
            cache[user, channel][1]

    def write(
        self, users: list[int], channels: list[int], messages: list[int], mentions: list[int], pins: list[int]
    ) -> None:
        cache = self.cache
        for user, channel, message, mention, pin in zip(
            users, channels, messages, mentions, pins, strict=True
        ):
            cache[user, channel] = message, mention, pin


class CachetoolsPeer(MappingPeer):
    label = "cachetools.LRUCache"
    package = "cachetools"
    choose_when = "you need expiry, other policies or sizes by weight; pure Python, nothing to compile"

    def __init__(self, capacity: int) -> None:
        from cachetools import LRUCache

        self.cache = LRUCache(capacity)


class LruDictPeer(MappingPeer):
    label = "lru-dict"
    package = "lru-dict"
    choose_when = "any hashable keys, any values; a rehash now and then does no harm"

    def __init__(self, capacity: int) -> None:
        from lru import LRU

        self.cache = LRU(capacity)


class CacheboxPeer(MappingPeer):
    label = "cachebox.LRUCache"
    package = "cachebox"
    choose_when = "any hashable keys, any values; other policies or expiry behind the same interface"

    def __init__(self, capacity: int) -> None:
        from cachebox import LRUCache

        self.cache = LRUCache(capacity)


class SlabCachePeer(MappingPeer):
    """slabcache: the only one that keeps no object for an entry, and the only one with batch calls."""

    label = "slabcache"
    package = "slabcache"
    choose_when = "many entries of fixed size; steady latency, memory or batches matter"

    def __init__(self, capacity: int) -> None:
        from slabcache import SlabCache

        self.cache = SlabCache(capacity, key=KEY, value=VALUE)

    def read(self, users: list[int], channels: list[int]) -> None:
        cache = self.cache
        for user, channel in zip(users, channels, strict=True):
            cache[user, channel].mention_count  # noqa: B018 - what is timed

    def read_batch(self, keys: Rows) -> int:
        """How many of the keys are there, by one batch call."""
        _, found = self.cache.get_many(keys)
        return int(found.sum())


PEERS: dict[str, type[Peer]] = {
    "lru_cache": LruCachePeer,
    "objects": ObjectsPeer,
    "cachetools": CachetoolsPeer,
    "lru_dict": LruDictPeer,
    "cachebox": CacheboxPeer,
    "slabcache": SlabCachePeer,
}
