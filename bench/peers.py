"""The caches that are compared, one small adapter each.

The loops of an adapter are written as a user of that cache would write them, so that no call of the adapter
stands between the clock and the cache. All but the OrderedDict of objects and slabcache keep flat tuples of
integers, the best that ordinary Python values can be: the collector stops tracking them once it has seen
them.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections import OrderedDict
from functools import lru_cache
from typing import Any, ClassVar

from measuring.read_states import KEY, VALUE, ReadState, Rows, load, values_of

from .workload import chunks, key_columns, row_columns


class Peer(ABC):
    """One cache of `capacity` entries. The loops take columns of equal length, one item for each row."""

    label: ClassVar[str]
    module: ClassVar[str] = "builtins"  # what must be installed
    package: ClassVar[str | None] = None  # its distribution; None for the standard library
    choose_when: ClassVar[str]  # when it is the better choice
    evicts: ClassVar[bool] = True
    writable: ClassVar[bool] = True  # an entry that is there can be written to

    @abstractmethod
    def __init__(self, capacity: int) -> None: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def hit(self, users: list[int], channels: list[int]) -> None:
        """Look up keys that are all there."""

    @abstractmethod
    def read(self, users: list[int], channels: list[int]) -> None:
        """The same, and read one field of each value."""

    @abstractmethod
    def write(self, *columns: list[int]) -> None:
        """Write entries, whether they are there or not: users, channels, messages, mentions, pins."""

    @abstractmethod
    def read_through(self, users: list[int], channels: list[int]) -> int:
        """Look up each key; load and write what is not there. How many were not."""

    def fill(self, keys: Rows) -> None:
        """Write all keys, by the shortest way, which is not for the clock."""
        for chunk in chunks(keys):
            self.write(*row_columns(chunk))

    def touch(self, keys: Rows) -> int:
        """Make each key the most recent, by the shortest way. How many were not there."""
        return sum(self.read_through(*key_columns(chunk)) for chunk in chunks(keys))


class LruCachePeer(Peer):
    """functools.lru_cache has no write: a miss calls the function, whose result it keeps."""

    label = "functools.lru_cache"
    choose_when = "results of a function are to be remembered; any hashable arguments, any result"
    writable = False

    def __init__(self, capacity: int) -> None:
        self.load = lru_cache(maxsize=capacity)(load)

    def __len__(self) -> int:
        return self.load.cache_info().currsize

    def hit(self, users: list[int], channels: list[int]) -> None:
        load = self.load
        for user, channel in zip(users, channels, strict=True):
            load(user, channel)

    def read(self, users: list[int], channels: list[int]) -> None:
        load = self.load
        for user, channel in zip(users, channels, strict=True):
            load(user, channel)[1]

    def write(self, *columns: list[int]) -> None:
        load = self.load
        for user, channel, _, _, _ in zip(*columns, strict=True):
            load(user, channel)

    def read_through(self, users: list[int], channels: list[int]) -> int:
        before = self.load.cache_info().misses
        self.hit(users, channels)
        return self.load.cache_info().misses - before


class MappingPeer(Peer):
    """What the caches share that are mappings and keep their order and size by themselves."""

    type_name: ClassVar[str]  # in `module`

    def __init__(self, capacity: int) -> None:
        self.cache: Any = getattr(importlib.import_module(self.module), self.type_name)(capacity)

    def __len__(self) -> int:
        return len(self.cache)

    def hit(self, users: list[int], channels: list[int]) -> None:
        cache = self.cache
        for user, channel in zip(users, channels, strict=True):
            cache[user, channel]

    def read(self, users: list[int], channels: list[int]) -> None:
        cache = self.cache
        for user, channel in zip(users, channels, strict=True):
            cache[user, channel][1]

    def write(self, *columns: list[int]) -> None:
        cache = self.cache
        for user, channel, message, mention, pin in zip(*columns, strict=True):
            cache[user, channel] = message, mention, pin

    def read_through(self, users: list[int], channels: list[int]) -> int:
        cache, get, misses = self.cache, self.cache.get, 0
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            if get(key) is None:
                cache[key] = load(user, channel)
                misses += 1
        return misses


class DictPeer(MappingPeer):
    """A dict is no cache, as it never evicts; its look-up is what Python can do."""

    label = "dict"
    choose_when = "everything fits into memory"
    evicts = False

    def __init__(self, capacity: int) -> None:  # noqa: ARG002 - it has none
        self.cache = {}


class OrderedDictPeer(MappingPeer):
    """The LRU that people write by hand."""

    label = "OrderedDict"
    choose_when = "a dozen lines in pure Python that you can change at will"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.cache = OrderedDict()

    def hit(self, users: list[int], channels: list[int]) -> None:
        cache, move_to_end = self.cache, self.cache.move_to_end
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            cache[key]
            move_to_end(key)

    def read(self, users: list[int], channels: list[int]) -> None:
        cache, move_to_end = self.cache, self.cache.move_to_end
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            cache[key][1]
            move_to_end(key)

    def write(self, *columns: list[int]) -> None:
        cache, capacity, move_to_end = self.cache, self.capacity, self.cache.move_to_end
        for user, channel, message, mention, pin in zip(*columns, strict=True):
            key = user, channel
            cache[key] = message, mention, pin
            move_to_end(key)
            if len(cache) > capacity:
                cache.popitem(last=False)

    def read_through(self, users: list[int], channels: list[int]) -> int:
        cache, capacity, move_to_end, misses = self.cache, self.capacity, self.cache.move_to_end, 0
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            if key in cache:
                cache[key]
                move_to_end(key)
                continue
            misses += 1
            cache[key] = load(user, channel)
            if len(cache) > capacity:
                cache.popitem(last=False)
        return misses


class ObjectsPeer(OrderedDictPeer):
    """The same, from (user, channel) to an object, which the collector has to look at."""

    label = "OrderedDict of objects"
    choose_when = "entries are mutable objects with methods; you want the same object back"

    def read(self, users: list[int], channels: list[int]) -> None:
        cache, move_to_end = self.cache, self.cache.move_to_end
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            _ = cache[key].mention_count
            move_to_end(key)

    def write(self, *columns: list[int]) -> None:
        cache, capacity, move_to_end = self.cache, self.capacity, self.cache.move_to_end
        for user, channel, message, mention, pin in zip(*columns, strict=True):
            key = user, channel
            cache[key] = ReadState(message, mention, pin)
            move_to_end(key)
            if len(cache) > capacity:
                cache.popitem(last=False)


class CachetoolsPeer(MappingPeer):
    label = "cachetools.LRUCache"
    module = package = "cachetools"
    type_name = "LRUCache"
    choose_when = "you need expiry, other policies or sizes by weight; pure Python, nothing to compile"


class LruDictPeer(MappingPeer):
    label = package = "lru-dict"
    module, type_name = "lru", "LRU"
    choose_when = "any hashable keys, any values; a rehash now and then does no harm"


class CacheboxPeer(MappingPeer):
    label = "cachebox.LRUCache"
    module = package = "cachebox"
    type_name = "LRUCache"
    choose_when = "any hashable keys, any values; other policies or expiry behind the same interface"


class GetSetPeer(Peer):
    """What the caches share that have `get` and `set`."""

    cache: Any

    def hit(self, users: list[int], channels: list[int]) -> None:
        get = self.cache.get
        for user, channel in zip(users, channels, strict=True):
            get((user, channel))

    def write(self, *columns: list[int]) -> None:
        put = self.cache.set
        for user, channel, message, mention, pin in zip(*columns, strict=True):
            put((user, channel), (message, mention, pin))


class MokaPeer(GetSetPeer):
    label = package = "moka-py"
    module = "moka_py"
    choose_when = "many threads, expiry, listeners; any hashable keys, any values"

    def __init__(self, capacity: int) -> None:
        from moka_py import Moka

        self.cache = Moka(capacity, policy="lru")

    def __len__(self) -> int:
        self.cache.run_pending_tasks()  # until then it counts what is about to be evicted
        return int(self.cache.count())

    def read(self, users: list[int], channels: list[int]) -> None:
        get = self.cache.get
        for user, channel in zip(users, channels, strict=True):
            get((user, channel))[1]

    def read_through(self, users: list[int], channels: list[int]) -> int:
        get, put, misses = self.cache.get, self.cache.set, 0
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            if get(key) is None:
                put(key, load(user, channel))
                misses += 1
        return misses


class TheinePeer(GetSetPeer):
    """theine has no plain LRU: W-TinyLFU decides what stays. Without its locks, the fastest it can be."""

    label = package = module = "theine"
    choose_when = (
        "the ratio of hits matters more than the time of one: its policy keeps what is asked for often"
    )

    def __init__(self, capacity: int) -> None:
        from theine import Cache

        self.cache = Cache(capacity, nolock=True)

    def __len__(self) -> int:
        return len(self.cache)

    def read(self, users: list[int], channels: list[int]) -> None:
        get = self.cache.get
        for user, channel in zip(users, channels, strict=True):
            state, found = get((user, channel))
            if found:
                state[1]

    def read_through(self, users: list[int], channels: list[int]) -> int:
        get, put, misses = self.cache.get, self.cache.set, 0
        for user, channel in zip(users, channels, strict=True):
            key = user, channel
            _, found = get(key)
            if not found:
                put(key, load(user, channel))
                misses += 1
        return misses


class SlabCachePeer(MappingPeer):
    """slabcache: the only one that keeps no object for an entry, and the only one with batch calls."""

    label = module = package = "slabcache"
    choose_when = "many entries of fixed size; steady latency, memory or batches matter"

    def __init__(self, capacity: int) -> None:
        from slabcache import SlabCache

        self.cache = SlabCache(capacity, key=KEY, value=VALUE)

    def read(self, users: list[int], channels: list[int]) -> None:
        cache = self.cache
        for user, channel in zip(users, channels, strict=True):
            _ = cache[user, channel].mention_count

    def fill(self, keys: Rows) -> None:
        for chunk in chunks(keys):
            self.cache.put_many(chunk, values_of(chunk))

    def touch(self, keys: Rows) -> int:
        return sum(len(chunk) - int(self.cache.touch_many(chunk).sum()) for chunk in chunks(keys))


#: The two that are compared most stand side by side, as tests run in this order.
PEERS: dict[str, type[Peer]] = {
    "dict": DictPeer,
    "slabcache": SlabCachePeer,
    "lru_cache": LruCachePeer,
    "ordered_dict": OrderedDictPeer,
    "objects": ObjectsPeer,
    "cachetools": CachetoolsPeer,
    "lru_dict": LruDictPeer,
    "cachebox": CacheboxPeer,
    "moka": MokaPeer,
    "theine": TheinePeer,
}

MISSING = [name for name, peer in PEERS.items() if importlib.util.find_spec(peer.module) is None]
INSTALLED = [name for name in PEERS if name not in MISSING]
EVICTING = [name for name in INSTALLED if PEERS[name].evicts]
