"""Intrusive ring of slot numbers, oldest first; it allocates nothing and knows neither keys nor order of use.

    ends (0) --next--> oldest --next--> ... --next--> newest --next--> ends

The links of slot n are at place n of an array; those of number 0, the ends, may be elsewhere. Zeroed ends are
an empty ring. All calls are O(1). A ring of marks is the same, with the numbers of marks for those of slots.

All words are derived, from the marks of the slots and their age.
"""

from slabcache.arena.header cimport NIL, slot_t


cdef struct place_t:
    slot_t prev                 # towards the oldest
    slot_t next                 # towards the newest


cdef struct ring_t:             # a view: a pointer into the arena, owned by nobody
    char *places                # links of number 0 would be here
    size_t stride               # bytes from links to links
    place_t *ends               # `next` is the oldest, `prev` the newest


cdef inline place_t *ring_place(const ring_t *ring, slot_t slot) noexcept nogil:
    return ring.ends if slot == NIL else <place_t *>(ring.places + slot * ring.stride)


cdef inline slot_t ring_oldest(const ring_t *ring) noexcept nogil:
    """The oldest slot, or NIL."""
    return ring.ends.next


cdef inline slot_t ring_next(const ring_t *ring, slot_t slot) noexcept nogil:
    """The slot that is next in age, or NIL after the newest."""
    return ring_place(ring, slot).next


cdef inline void ring_insert(ring_t *ring, slot_t slot, slot_t before) noexcept nogil:
    """Put `slot`, which is not on the ring, in front of another, or at the end before NIL."""
    cdef place_t *place = ring_place(ring, slot)
    cdef place_t *behind = ring_place(ring, before)
    place.prev = behind.prev
    place.next = before
    ring_place(ring, behind.prev).next = slot
    behind.prev = slot


cdef inline void ring_append(ring_t *ring, slot_t slot) noexcept nogil:
    """Put `slot`, which is not on the ring, at the end: it is the newest."""
    ring_insert(ring, slot, NIL)


cdef inline void ring_prepend(ring_t *ring, slot_t slot) noexcept nogil:
    """Put `slot`, which is not on the ring, at the front: it is the oldest."""
    ring_insert(ring, slot, ring_oldest(ring))


cdef inline void ring_unlink(ring_t *ring, slot_t slot) noexcept nogil:
    cdef place_t *place = ring_place(ring, slot)
    ring_place(ring, place.prev).next = place.next
    ring_place(ring, place.next).prev = place.prev
