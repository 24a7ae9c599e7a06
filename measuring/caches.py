"""Caches of Read States, as a service would use them. Each serves a request as suits it best.

`serve(user, channel, write)` reads one record, through to the store on a miss, adds a mention when the
request is a write, and returns the record's three fields; all give the same answers. The key is made anew
from the numbers: equal to the stored one, never it. What two caches have in common stands in both where a
call more would cost one of them time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

from measuring.read_states import KEY, VALUE, Fields, ReadState, load

__all__ = [
    "Cache",
    "CacheboxCache",
    "LruDictCache",
    "NoCache",
    "ObjectCache",
    "SlabCacheCache",
    "TupleCache",
]


class Cache(Protocol):
    """What a service asks of them. `misses` counts the records that came from the store."""

    misses: int

    def serve(self, user: int, channel: int, write: bool) -> Iterable[int]: ...


class NoCache:
    """Nothing is kept, each record comes from the store. What remains is the request itself."""

    def __init__(self, _capacity: int) -> None:
        self.misses = 0

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        last_message_id, mention_count, last_pin_ts = load(user, channel)
        return last_message_id, mention_count + write, last_pin_ts


class ObjectCache:
    """The LRU of ordinary objects: an OrderedDict from (user, channel) to ReadState."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.misses = 0
        self.states: OrderedDict[tuple[int, int], ReadState] = OrderedDict()

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        key = user, channel
        state = self.states.get(key)
        if state is not None:
            self.states.move_to_end(key)
        else:
            self.misses += 1
            if len(self.states) == self.capacity:
                self.states.popitem(last=False)
            state = self.states[key] = ReadState(*load(user, channel))
        if write:
            state.mention_count += 1
        return state.last_message_id, state.mention_count, state.last_pin_ts


class TupleCache:
    """Fewer pointers: the same LRU of flat tuples of integers, which the collector stops tracking."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.misses = 0
        self.states: OrderedDict[tuple[int, int], Fields] = OrderedDict()

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        key = user, channel
        state = self.states.get(key)
        if state is not None:
            self.states.move_to_end(key)
        else:
            self.misses += 1
            if len(self.states) == self.capacity:
                self.states.popitem(last=False)
            state = self.states[key] = load(user, channel)
        if write:
            state = self.states[key] = state[0], state[1] + 1, state[2]
        return state


class EvictingCache:
    """Flat tuples in a mapping that keeps its order and its size by itself."""

    def __init__(self, states: Any) -> None:
        self.misses = 0
        self.states = states

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        key = user, channel
        state: Fields | None = self.states.get(key)
        if state is None:
            self.misses += 1
            state = self.states[key] = load(user, channel)
        if write:
            state = self.states[key] = state[0], state[1] + 1, state[2]
        return state


class LruDictCache(EvictingCache):
    """lru-dict, an LRU in C whose own nodes the collector does not walk."""

    def __init__(self, capacity: int) -> None:
        from lru import LRU

        super().__init__(LRU(capacity))


class CacheboxCache(EvictingCache):
    """cachebox, an LRU in Rust."""

    def __init__(self, capacity: int) -> None:
        from cachebox import LRUCache

        super().__init__(LRUCache(capacity))


class SlabCacheCache:
    """slabcache, through its scalar calls."""

    def __init__(self, capacity: int) -> None:
        from slabcache import SlabCache

        self.misses = 0
        self.states = SlabCache(capacity, key=KEY, value=VALUE)

    def serve(self, user: int, channel: int, write: bool) -> Iterable[int]:
        state: Iterable[int] | None = self.states.get((user, channel))
        if state is None:
            self.misses += 1
            state = self.states[user, channel] = load(user, channel)
        if write:
            last_message_id, _, last_pin_ts = state
            return last_message_id, self.states.increment((user, channel), "mention_count"), last_pin_ts
        return state
