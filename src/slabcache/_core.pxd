"""Table of contents of `_core.pyx`: the scalar calls of `SlabCache`."""

from libc.stdint cimport uint64_t

from slabcache.arena.header cimport slot_t
from slabcache._base cimport Evicted, SlabBase, key_t
from slabcache.arena.field cimport delta_t, field_t


cdef enum look_up_t:
    LOOK_UP_GET                 # counted, makes the entry the most recent
    LOOK_UP_PEEK                # changes nothing
    LOOK_UP_POP                 # deletes the entry


cdef struct seen_t:             # an entry that was seen, and that a change is to be made to later
    uint64_t version            # of the cache; when it is still the same, so is the entry
    slot_t slot


cdef struct hit_t:              # a hit, and where its entry was before
    uint64_t version            # of the cache after it
    slot_t slot
    slot_t newer                # the one before it in the LRU list


cdef class CacheCore(SlabBase):
    cdef readonly object on_evict

    cdef bint erase_least_recent(self, const key_t *key, const char *data, seen_t *seen) noexcept
    cdef bint increment_seen(
        self, const key_t *key, const field_t *field, const delta_t *delta, const char *expected, seen_t *seen
    ) noexcept
    cdef int put(self, const key_t *key, const char *value) except -1
    cdef Evicted room_for_evicted(self)
    cdef int report(self, Evicted evicted) except -1
