"""The caches that are compared. Each serves a request as suits it best; all give the same answers.

`serve(user, channel, write)` reads one record, through to the store on a miss, adds a mention when the
request is a write, and returns the record's three fields. The key is made anew from the numbers: equal to the
stored one, never it.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

Fields = tuple[int, int, int]

KEY = [("user_id", "u8"), ("channel_id", "u8")]
VALUE = [("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u8")]

#: How far the thresholds are raised: young collections become this much rarer, and with them the full ones.
THRESHOLD_FACTOR = 4


def load(user: int, channel: int) -> Fields:
    """Stand for the store: the record of a key, as new objects."""
    return user ^ channel, channel & 7, channel >> 22


class Cache(Protocol):
    """What the service asks of a contender. `misses` counts the records that came from the store."""

    misses: int

    def serve(self, user: int, channel: int, write: bool) -> Iterable[int]: ...


class NoCache:
    """The floor: nothing is kept, each record comes from the store. What remains is the request itself."""

    def __init__(self, _capacity: int) -> None:
        self.misses = 0

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        last_message_id, mention_count, last_pin_ts = load(user, channel)
        return last_message_id, mention_count + write, last_pin_ts


@dataclass
class ReadState:
    """A record as services write it: an ordinary object."""

    last_message_id: int
    mention_count: int
    last_pin_ts: int


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


class LruDictCache:
    """The strongest alternative: lru-dict, an LRU in C whose own nodes the collector does not walk."""

    def __init__(self, capacity: int) -> None:
        from lru import LRU

        self.misses = 0
        self.states: LRU[tuple[int, int], Fields] = LRU(capacity)

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        key = user, channel
        state = self.states.get(key)
        if state is None:
            self.misses += 1
            state = self.states[key] = load(user, channel)
        if write:
            state = self.states[key] = state[0], state[1] + 1, state[2]
        return state


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


def leave_collector(_entries: int) -> None:
    """The collector as Python sets it."""


def raise_thresholds(_entries: int) -> None:
    """What GOGC is in Go: collect more rarely."""
    first, second, third = gc.get_threshold()
    gc.set_threshold(first * THRESHOLD_FACTOR, second, third)


def load_ballast(entries: int) -> list[list[None]]:
    """As many empty lists as entries: a full collection waits until a quarter of all survivors is new."""
    return [[] for _ in range(entries)]


def freeze_heap(_entries: int) -> None:
    """Take all that lives now out of the collector's sight. Entries made later are in it again."""
    gc.freeze()


@dataclass(frozen=True)
class Contender:
    """A cache and the collector it runs with.

    before_fill and after_fill get the number of entries; what they return is kept alive until the run ends.
    caches: False for the floor, of which no hit ratio and no bytes an entry are asked.
    """

    name: str
    label: str
    cache: Callable[[int], Cache]
    before_fill: Callable[[int], object] = leave_collector
    after_fill: Callable[[int], object] = leave_collector
    caches: bool = True


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("objects", "Python objects", ObjectCache),
        Contender("thresholds", f"objects, thresholds x {THRESHOLD_FACTOR}", ObjectCache, raise_thresholds),
        Contender("ballast", "objects, ballast", ObjectCache, load_ballast),
        Contender("freeze", "objects, gc.freeze", ObjectCache, after_fill=freeze_heap),
        Contender("tuples", "fewer pointers: tuples", TupleCache),
        Contender("lru_dict", "lru-dict, flat tuples", LruDictCache),
        Contender("lru_freeze", "lru-dict, gc.freeze", LruDictCache, after_fill=freeze_heap),
        Contender("slabcache", "slabcache", SlabCacheCache),
        Contender("floor", "no cache (floor)", NoCache, caches=False),
    )
}
