"""Intrusive list of slot numbers in order of recency; it allocates nothing and knows no keys.

    sentinel (slot 0) --next--> most recent --next--> ... --next--> least recent --next--> sentinel
                      <--prev--             <--prev--     <--prev--              <--prev--

The links of slot n are two 32-bit slot numbers inside slot n. The sentinel closes the ring, so no
operation has a special case for the ends; a zeroed ring is an empty one. All are O(1).

Evictions walk the tail, where each slot must be read from memory before the next one is known. So each
slot carries a hint, the slot that was pushed 16 pushes after it: when it is evicted, the hint names a
coming victim early enough to fetch it. The trail, in the header, has the last 16 pushes and the next 16
victims. A hint may be stale, or 0, and then costs time alone; but it is followed, so it always names a slot
that there is. In front of a store the word of an unsaved slot holds no hint (see behind/arena/marks.pxd).

Base words: `next`. Derived: `prev`. Hints and trail are advice.

Invariant I2: forward and backward the list visits every live, unevicted slot once.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from slabcache.arena.header cimport NIL, slot_t, trail_t


cdef enum:
    TRAIL = 16                  # pushes from a slot to the one that its hint names


cdef struct link_t:
    slot_t prev                 # towards the most recent
    slot_t next                 # towards the least recent
    slot_t hint                 # the slot pushed 16 pushes after this one, as far as is known; or its mark


cdef struct lru_t:              # a view: a pointer into the arena, owned by nobody
    char *links                 # links of slot 0
    size_t stride               # bytes from links to links
    trail_t *trail              # in the header of the arena


cdef inline link_t *lru_link(const lru_t *lru, slot_t slot) noexcept nogil:
    return <link_t *>(lru.links + slot * lru.stride)


cdef inline slot_t lru_most_recent(const lru_t *lru) noexcept nogil:
    return lru_link(lru, NIL).next


cdef inline slot_t lru_least_recent(const lru_t *lru) noexcept nogil:
    return lru_link(lru, NIL).prev


cdef inline void lru_insert(lru_t *lru, slot_t slot) noexcept nogil:
    """Make `slot`, which is on no list, the most recent; hints are left to the caller."""
    cdef link_t *sentinel = lru_link(lru, NIL)
    cdef link_t *link = lru_link(lru, slot)
    link.prev = NIL
    link.next = sentinel.next
    lru_link(lru, sentinel.next).prev = slot
    sentinel.next = slot


cdef inline slot_t lru_note_push(lru_t *lru, slot_t slot) noexcept nogil:
    """Take note that `slot` was pushed; the slot whose hint it is to be."""
    cdef slot_t *pushed = &lru.trail.pushed[lru.trail.push_at % TRAIL]
    cdef slot_t hinted = pushed[0]
    pushed[0] = slot
    lru.trail.push_at += 1
    return hinted


cdef inline void lru_push(lru_t *lru, slot_t slot) noexcept nogil:
    """Make `slot`, which is on no list, the most recent."""
    lru_insert(lru, slot)
    lru_link(lru, slot).hint = NIL      # what came after it the last time will not do so again
    lru_link(lru, lru_note_push(lru, slot)).hint = slot


cdef inline void lru_clear(lru_t *lru) noexcept nogil:
    """Take all slots off the list; none of them is named by anything then."""
    lru_link(lru, NIL).prev = lru_link(lru, NIL).next = NIL
    memset(lru.trail, 0, sizeof(trail_t))


cdef inline void lru_unlink(lru_t *lru, slot_t slot) noexcept nogil:
    cdef link_t *link = lru_link(lru, slot)
    lru_link(lru, link.prev).next = link.next
    lru_link(lru, link.next).prev = link.prev


cdef inline void lru_move_behind(lru_t *lru, slot_t slot, slot_t newer) noexcept nogil:
    """Move `slot` to the place right after another in recency, or to the front where that is NIL."""
    cdef link_t *link = lru_link(lru, slot)
    lru_unlink(lru, slot)
    link.prev = newer
    link.next = lru_link(lru, newer).next
    lru_link(lru, link.next).prev = slot
    lru_link(lru, newer).next = slot


cdef inline bint lru_move_to_front(lru_t *lru, slot_t slot) noexcept nogil:
    """Make `slot`, which is on the list, the most recent; whether that changed the order."""
    cdef lru_t view = lru[0]        # for registers: a store to a link might be one to what `lru` points to
    if lru_most_recent(&view) == slot:
        return False
    lru_unlink(&view, slot)
    lru_push(&view, slot)
    return True


cdef inline void lru_note_victim(lru_t *lru, slot_t victim) noexcept nogil:
    """Take note of the slot that will probably be evicted 16 evictions after `victim`."""
    lru.trail.coming[lru.trail.evict_at % TRAIL] = lru_link(lru, victim).hint
    lru.trail.evict_at += 1


cdef inline slot_t lru_coming(const lru_t *lru, uint32_t eviction) noexcept nogil:
    """What was noted at one of the last 16 evictions, by its number."""
    return lru.trail.coming[eviction % TRAIL]
