"""Which entries the store behind a cache does not have yet: the state of each slot, and the order of writing.

The state is the byte after the value of a slot. The rest lies behind all slots, at `extra_at`:

    unsaved_t                   counts
    mark_t x (slot_count + 1)   mark 0 is the sentinel of both rings
    uint64_t x places           numbers of writes that were forgotten

                    write              drain              acknowledge
    STATE_CLEAN   -------->  DIRTY   -------->  FLUSHING  ----------->  STATE_CLEAN
                               ^                   | write
                               |  acknowledge      v
                               +---------------  REDIRTIED

So an acknowledgement cleans only what was not written since. A flag besides says where a slot is: in the LRU
list, evicted from it (pending), or deleted (a tombstone, until the store has deleted its row too). All of
them are in the table.

A value that is loaded must not replace a newer one. Each write has a number. A slot that was written and then
leaves memory, its row stored, leaves the number of its last write at a place picked by its hash: a load
that began before that number may have read what was there before the write, and is not kept. Keys share
places, so now and then a load is not kept for a write of another key: how often depends on the rows that the
store confirms, and the cache evicts, in the time that a load takes; there are places enough for thousands.

Invariant I6: slots that are not clean are on the dirty ring once, oldest first; pending ones that are in no
batch on the pending ring too; pending <= max_pending. Each function needs the lock of the cache.
"""

from libc.stdint cimport uint8_t, uint64_t

from slabcache._arena cimport header_t, slot_t
from slabcache._native cimport native_now
from slabcache._ring cimport ring_append, ring_t, ring_unlink
from slabcache._slab cimport SLOT_KEY_AT, slab_attach, slab_t


cdef enum:
    STATE_CLEAN = 0
    STATE_DIRTY = 1
    STATE_FLUSHING = 2          # in a batch that the store has not confirmed
    STATE_REDIRTIED = 3         # in such a batch, and written since
    STATE_MASK = 3
    STATE_EVICTED = 4           # pending: off the LRU list until the store has confirmed it
    STATE_DELETED = 8           # a tombstone: off the LRU list too
    STATE_WRITTEN = 16          # written since it came into memory
    STATE_FREE = 32             # holds no entry

    PLACES_MIN = 16384          # for the numbers of forgotten writes; a power of two
    SLOTS_PER_PLACE = 4         # at most

    # What the flusher waits for.
    SLEEP_NOT = 0
    SLEEP_UNTIL_DUE = 1         # a pending entry wakes it
    SLEEP_IDLE = 2              # so does any write


cdef struct mark_t:             # for each slot
    slot_t dirty_prev, dirty_next           # links of the dirty ring
    slot_t pending_prev, pending_next       # links of the pending ring
    uint64_t since              # when it became dirty, monotonic, nanoseconds
    uint64_t written            # number of its last write; 0 unless STATE_WRITTEN


cdef struct unsaved_t:
    uint64_t writes             # number of the last write
    uint64_t count              # slots in any state but STATE_CLEAN, free ones apart
    uint64_t pending            # of them, those evicted
    uint64_t deleted            # of them, tombstones
    uint64_t max_pending
    uint64_t sleep              # what the flusher waits for
    uint64_t bell               # the flusher is to be woken
    slot_t cursor               # the LRU list has no clean entry behind this one; NIL: not known


cdef struct behind_t:           # views into one arena
    slab_t slab
    unsaved_t *unsaved
    mark_t *marks
    ring_t dirty
    ring_t pending
    uint64_t *forgotten
    uint64_t place_mask         # places for forgotten writes - 1
    size_t state_at             # bytes from the start of a slot to its state


cdef inline uint64_t unsaved_places(uint64_t slot_count) noexcept nogil:
    cdef uint64_t places = PLACES_MIN
    while places * SLOTS_PER_PLACE < slot_count:
        places *= 2
    return places


cdef inline uint64_t unsaved_size(uint64_t slot_count) noexcept nogil:
    cdef uint64_t places = unsaved_places(slot_count)
    return sizeof(unsaved_t) + (slot_count + 1) * sizeof(mark_t) + places * sizeof(uint64_t)


cdef inline void behind_attach(behind_t *behind, header_t *header) noexcept nogil:
    cdef char *extra = <char *>header + header.extra_at
    slab_attach(&behind.slab, header)
    behind.unsaved = <unsaved_t *>extra
    behind.marks = <mark_t *>(extra + sizeof(unsaved_t))
    behind.dirty.places = <char *>&behind.marks.dirty_prev
    behind.dirty.stride = sizeof(mark_t)
    behind.pending.places = <char *>&behind.marks.pending_prev
    behind.pending.stride = sizeof(mark_t)
    behind.forgotten = <uint64_t *>(behind.marks + header.slot_count + 1)
    behind.place_mask = unsaved_places(header.slot_count) - 1
    behind.state_at = SLOT_KEY_AT + header.key_size + header.value_size


cdef inline uint8_t *behind_state(const behind_t *behind, slot_t slot) noexcept nogil:
    return <uint8_t *>(behind.slab.lru.links + slot * behind.slab.lru.stride + behind.state_at)


cdef inline bint behind_is_full(const behind_t *behind) noexcept nogil:
    """Whether one more unsaved entry finds no room."""
    return behind.unsaved.count == behind.slab.header.slot_count


cdef inline void behind_wake(behind_t *behind, uint64_t sleep) noexcept nogil:
    if behind.unsaved.sleep >= sleep:
        behind.unsaved.sleep = SLEEP_NOT
        behind.unsaved.bell = True


cdef inline void behind_mark(behind_t *behind, slot_t slot, uint64_t now) noexcept nogil:
    """Take note of a write to a slot; the clock is read, where need be, if `now` is 0."""
    cdef uint8_t *state = behind_state(behind, slot)
    cdef mark_t *mark = behind.marks + slot
    cdef uint8_t was = state[0] & STATE_MASK
    behind.unsaved.writes += 1
    mark.written = behind.unsaved.writes
    if was == STATE_CLEAN or was == STATE_FLUSHING:
        state[0] = (state[0] & ~<uint8_t>STATE_MASK) | STATE_WRITTEN
        state[0] |= STATE_DIRTY if was == STATE_CLEAN else STATE_REDIRTIED
        if was == STATE_CLEAN:
            behind.unsaved.count += 1
        else:
            ring_unlink(&behind.dirty, slot)
        mark.since = now if now else native_now()
        ring_append(&behind.dirty, slot)
        if state[0] & STATE_EVICTED:
            ring_append(&behind.pending, slot)
        behind_wake(behind, SLEEP_IDLE)


cdef inline bint behind_waits(const behind_t *behind, slot_t slot) noexcept nogil:
    """Whether a slot waits to be written; those of a batch do not, unless written again."""
    return behind_state(behind, slot)[0] & STATE_DIRTY


cdef inline void behind_forget(behind_t *behind, uint64_t hash, slot_t slot) noexcept nogil:
    """A saved slot leaves memory."""
    cdef uint64_t *forgotten = &behind.forgotten[hash & behind.place_mask]
    if behind_state(behind, slot)[0] & STATE_WRITTEN:
        forgotten[0] = max(forgotten[0], behind.marks[slot].written)


cdef inline void behind_outdate(behind_t *behind, uint64_t hash) noexcept nogil:
    """What loads find that are under way is not what a key has now."""
    behind.unsaved.writes += 1
    behind.forgotten[hash & behind.place_mask] = behind.unsaved.writes


cdef inline bint behind_is_current(const behind_t *behind, uint64_t hash, uint64_t since) noexcept nogil:
    """Whether what a load found that began after write number `since` is what an absent key has now."""
    return behind.forgotten[hash & behind.place_mask] <= since
