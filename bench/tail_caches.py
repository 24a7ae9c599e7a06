"""The caches behind the requests of `tail`, with calls beside `serve`.

slabcache is imported in all processes: the collector walks what it brings along, whether it is used or not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import slabcache  # noqa: F401 - see above
from measuring.caches import CacheboxCache, LruDictCache, NoCache, ObjectCache, SlabCacheCache
from measuring.read_states import Fields, Rows, load, values_of

NOTHING: Fields = 0, 0, 0

#: A hit visits a bucket, a slot, its two neighbours in the list and the one that was the most recent.
VISITS = 5
LINE_BYTES = 64


class Calls(ABC):
    """What requests ask of a cache. Each call answers with the fields of a record, or with `NOTHING`."""

    misses: int
    states: Any

    @abstractmethod
    def serve(self, user: int, channel: int, write: bool) -> Iterable[int]: ...

    def read(self, user: int, channel: int) -> Iterable[int]:
        return self.serve(user, channel, False)

    def count(self, user: int, channel: int) -> Iterable[int]:
        return self.serve(user, channel, True)

    def edit(self, user: int, channel: int) -> Iterable[int]:
        """Read a record and write two of its fields."""
        _, mention_count, _ = self.serve(user, channel, False)
        state = self.states[user, channel] = user, mention_count, channel
        return state

    def forget(self, user: int, channel: int) -> Iterable[int]:
        """Delete the record if it is there."""
        self.states.pop((user, channel), None)
        return NOTHING

    def read_batch(self, keys: Rows) -> Iterable[int]:
        for user, channel in keys.tolist():
            self.serve(user, channel, False)
        return NOTHING

    def count_batch(self, keys: Rows) -> Iterable[int]:
        for user, channel in keys.tolist():
            self.serve(user, channel, True)
        return NOTHING


class NoCalls(NoCache, Calls):
    """Nothing is kept: what remains is the request itself."""

    def edit(self, user: int, channel: int) -> Fields:
        _, mention_count, _ = load(user, channel)
        return user, mention_count, channel

    def forget(self, user: int, channel: int) -> Fields:  # noqa: ARG002 - the key
        return NOTHING

    def read_batch(self, keys: Rows) -> Fields:
        values_of(keys)
        return NOTHING

    def count_batch(self, keys: Rows) -> Fields:
        values_of(keys)
        return NOTHING


class MemoryCalls(NoCalls):
    """Nothing is kept, but as many places in as much memory are visited as a cache has to.

    What this costs the collector is the price of memory: it finds less of its own in the processor's caches.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.places = np.ones((capacity, LINE_BYTES // 8), np.uint64)
        self.words: Any = self.places.ravel().data

    def serve(self, user: int, channel: int, write: bool) -> Fields:
        words, length = self.words, len(self.words)
        for visit in range(VISITS):
            words[(user + visit * channel) % length] = visit
        return super().serve(user, channel, write)

    def read_batch(self, keys: Rows) -> Fields:
        users, channels, places = keys["user_id"], keys["channel_id"], np.uint64(len(self.places))
        for visit in range(VISITS):
            self.places[(users + np.uint64(visit) * channels) % places, 0] = visit
        return super().read_batch(keys)

    def count_batch(self, keys: Rows) -> Fields:
        return self.read_batch(keys)


class ObjectCalls(ObjectCache, Calls):
    def edit(self, user: int, channel: int) -> Fields:
        self.serve(user, channel, False)
        state = self.states[user, channel]
        state.last_message_id, state.last_pin_ts = user, channel
        return user, state.mention_count, channel


class LruDictCalls(LruDictCache, Calls):
    pass


class CacheboxCalls(CacheboxCache, Calls):
    pass


class SlabCacheCalls(SlabCacheCache, Calls):
    def edit(self, user: int, channel: int) -> Fields:
        _, mention_count, _ = self.serve(user, channel, False)
        self.states.update_fields((user, channel), last_message_id=user, last_pin_ts=channel)
        return user, mention_count, channel

    def read_batch(self, keys: Rows) -> Fields:
        _, found = self.states.get_many(keys)
        missing = keys[~found]
        self.misses += len(missing)
        self.states.put_many(missing, values_of(missing))
        return NOTHING

    def count_batch(self, keys: Rows) -> Fields:
        """Add a mention to those records that are there."""
        self.states.increment_many(keys, "mention_count")
        return NOTHING


CACHES: dict[str, Callable[[int], Calls]] = {
    "none": NoCalls,
    "memory": MemoryCalls,
    "objects": ObjectCalls,
    "lru_dict": LruDictCalls,
    "cachebox": CacheboxCalls,
    "slabcache": SlabCacheCalls,
}
