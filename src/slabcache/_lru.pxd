"""Intrusive list of slot numbers in order of recency; it allocates nothing and knows no keys.

    sentinel (slot 0) --next--> most recent --next--> ... --next--> least recent --next--> sentinel
                      <--prev--             <--prev--     <--prev--              <--prev--

The links of slot n are two 32-bit slot numbers inside slot n. The sentinel closes the ring, so no
operation has a special case for the ends; a zeroed ring is an empty one. All are O(1).

Invariant I2: forward and backward the list visits every live, unevicted slot once.
"""

from slabcache._arena cimport NIL, slot_t


cdef struct link_t:
    slot_t prev                 # towards the most recent
    slot_t next                 # towards the least recent


cdef struct lru_t:              # a view: a pointer into the arena, owned by nobody
    char *links                 # links of slot 0
    size_t stride               # bytes from links to links


cdef inline link_t *lru_link(const lru_t *lru, slot_t slot) noexcept nogil:
    return <link_t *>(lru.links + slot * lru.stride)


cdef inline slot_t lru_most_recent(const lru_t *lru) noexcept nogil:
    return lru_link(lru, NIL).next


cdef inline slot_t lru_least_recent(const lru_t *lru) noexcept nogil:
    return lru_link(lru, NIL).prev


cdef inline void lru_push(lru_t *lru, slot_t slot) noexcept nogil:
    """Make `slot`, which is on no list, the most recent."""
    cdef link_t *sentinel = lru_link(lru, NIL)
    cdef link_t *link = lru_link(lru, slot)
    link.prev = NIL
    link.next = sentinel.next
    lru_link(lru, sentinel.next).prev = slot
    sentinel.next = slot


cdef inline void lru_unlink(lru_t *lru, slot_t slot) noexcept nogil:
    cdef link_t *link = lru_link(lru, slot)
    lru_link(lru, link.prev).next = link.next
    lru_link(lru, link.next).prev = link.prev


cdef inline bint lru_move_to_front(lru_t *lru, slot_t slot) noexcept nogil:
    """Make `slot`, which is on the list, the most recent; whether that changed the order."""
    if lru_most_recent(lru) == slot:
        return False
    lru_unlink(lru, slot)
    lru_push(lru, slot)
    return True
