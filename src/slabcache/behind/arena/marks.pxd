"""Marks: what a cache before a store keeps of each slot that is unsaved. A pool of them, and the way to them.

There are as many marks as slots, but mostly few slots are unsaved. So a mark is taken when its slot becomes
unsaved and given back when the store has its row (or, of an overtaken entry, when it is used or evicted): the
one given back last is taken first, and one that was never used only where none is left. Memory is touched as
far as the most marked slots at a time reached, no further, however many slots have had their turn. Mark 0 is
the sentinel of the dirty ring.

    pool_at    0        4        8       12       16             24                        32
         | prev   | next   | slot   | hint   | since        | stamp: write number, state |
           mark     mark     slot     slot

The way from a slot to its mark is the word that holds the hint of a clean slot (see arena/lru.pxd):

    0 | hint (31 bits)          clean: what arena/lru.pxd has written there
    1 | mark number             unsaved, or overtaken: its hint is in the mark meanwhile
    1 | 0                       free: no entry

Base words: of a mark its slot, its stamp and since when; the word of a slot that leads to it. Derived: the
links of the rings and the free chain. The hint is advice.

So slots and marks have numbers below 2**31. Each function needs the lock of the cache; all are O(1).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from slabcache.arena.header cimport NIL, slot_t
from slabcache.arena.lru cimport link_t


cdef extern from *:             # too large for a C enum
    """
    #define MARKED 0x80000000u              /* of the word in a slot */
    #define MARKED_SLOTS_MAX 0x7FFFFFFFu    /* 2**31 - 1 */
    """
    const uint32_t MARKED
    const uint64_t MARKED_SLOTS_MAX

ctypedef uint32_t mark_number_t

cdef enum:
    STATE_CLEAN = 0
    STATE_DIRTY = 1
    STATE_FLUSHING = 2          # in a batch that the store has not confirmed
    STATE_REDIRTIED = 3         # in such a batch, and written since
    STATE_MASK = 3
    STATE_EVICTED = 4           # pending: off the LRU list until the store has confirmed it
    STATE_DELETED = 8           # a tombstone: off the LRU list too
    STATE_PASSED = 16           # the search for a clean entry has gone past it, see behind_oldest_clean
    STATE_FAILING = 32          # dirty, and its row fails by itself: off both rings until it is taken again

    STAMP_STATE_BITS = 8        # 2**56 writes are enough


cdef struct mark_t:
    mark_number_t prev, next    # links of the dirty or overtaken ring; `next` chains those that are free
    slot_t slot                 # whose mark it is; NIL: free
    slot_t hint                 # of the slot
    uint64_t since              # when it became dirty, monotonic, nanoseconds
    uint64_t stamp              # number of its last write, and its state in the low bits


cdef struct pool_t:
    mark_number_t free          # the mark given back last, or 0
    mark_number_t fresh         # marks 1 to `fresh` have been taken at least once


cdef struct marks_t:            # views into one arena
    mark_t *marks
    pool_t *pool


cdef inline bint link_is_marked(const link_t *link) noexcept nogil:
    """Whether a slot that is not free has a mark."""
    return link.hint & MARKED != 0


cdef inline bint link_is_free(const link_t *link) noexcept nogil:
    return link.hint == MARKED


cdef inline mark_number_t link_mark(const link_t *link) noexcept nogil:
    """The number of the mark of a slot that has one."""
    return link.hint & ~MARKED


cdef inline mark_t *marks_of(const marks_t *marks, const link_t *link) noexcept nogil:
    """The mark of a slot that has one; for a free one the sentinel."""
    return marks.marks + link_mark(link)


cdef inline mark_t *marks_at(const marks_t *marks, const link_t *link) noexcept nogil:
    """The mark of a slot that has one; for all others the sentinel, whose state is that of clean slots."""
    return marks_of(marks, link) if link_is_marked(link) else marks.marks


cdef inline void marks_set_hint(marks_t *marks, link_t *link, slot_t hint) noexcept nogil:
    """The hint of a free slot goes to the sentinel, where it does not matter."""
    if link_is_marked(link):
        marks_of(marks, link).hint = hint
    else:
        link.hint = hint


cdef inline uint8_t mark_state(const mark_t *mark) noexcept nogil:
    return mark.stamp & ((1 << STAMP_STATE_BITS) - 1)


cdef inline void mark_set_state(mark_t *mark, uint8_t state) noexcept nogil:
    mark.stamp = mark.stamp >> STAMP_STATE_BITS << STAMP_STATE_BITS | state


cdef inline uint64_t mark_written(const mark_t *mark) noexcept nogil:
    """The number of the last write."""
    return mark.stamp >> STAMP_STATE_BITS


cdef inline uint8_t marks_state(const marks_t *marks, const link_t *link) noexcept nogil:
    return mark_state(marks_at(marks, link))


cdef inline mark_number_t marks_take(marks_t *marks, link_t *link, slot_t slot) noexcept nogil:
    """A mark for a clean slot, in no state and on no ring yet."""
    cdef mark_number_t number = marks.pool.free
    cdef mark_t *mark
    if number:
        marks.pool.free = marks.marks[number].next
    else:
        marks.pool.fresh += 1
        number = marks.pool.fresh
    mark = marks.marks + number
    mark.slot = slot
    mark.hint = link.hint
    link.hint = MARKED | number
    return number


cdef inline void marks_give_back(marks_t *marks, link_t *link) noexcept nogil:
    """A slot that is clean gives its mark back, which is on no ring."""
    cdef mark_number_t number = link_mark(link)
    cdef mark_t *mark = marks.marks + number
    link.hint = mark.hint
    mark.slot = NIL
    mark.next = marks.pool.free
    marks.pool.free = number


cdef inline void link_set_free(link_t *link) noexcept nogil:
    """A clean slot holds no entry from now on."""
    link.hint = MARKED


cdef inline void link_set_used(link_t *link) noexcept nogil:
    """A slot, free or clean, is about to hold an entry, clean and without a hint."""
    link.hint = NIL
