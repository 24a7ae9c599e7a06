"""The invariant walker: I1 to I5 of the design over a whole arena. O(capacity), allocates nothing.

Debug builds call it after each change of a small cache; `SlabCache._check` does so on demand. The parts are
those of a cache before a store as well, whose walker (behind/arena/check.pxd) adds I6: there `off_list` slots
are in the table and not on the LRU list.
"""

from libc.stdint cimport uint64_t

from slabcache.arena.header cimport ARENA_LAYOUT, ARENA_MAGIC, BUCKET_CELLS, NIL, header_t, slot_t
from slabcache.arena.lru cimport lru_least_recent, lru_link, lru_most_recent
from slabcache.arena.slab cimport slab_find, slab_hash, slab_key, slab_t
from slabcache.arena.table cimport bucket_t, table_home, table_next


cdef enum check_t:
    CHECK_OK
    CHECK_HEADER                # the header is not that of an arena of this layout
    CHECK_LIVE_NOT_FOUND        # I1, I4: a live slot is not found from its key
    CHECK_TABLE_EXTRA           # I1: the table holds more, or less, than the live slots
    CHECK_OVERFLOW              # I1: overflow counters do not add up
    CHECK_FORWARD               # I2: following `next` does not visit each live slot once
    CHECK_BACKWARD              # I2: `prev` does not undo `next`
    CHECK_FREE                  # I3: live and free slots are not all slots, or one is both
    CHECK_COUNTERS              # I5
    CHECK_HINT                  # a hint names no slot that was ever used
    CHECK_UNSAVED               # I6: states, rings and counts of unsaved entries do not agree
    CHECK_MARKS                 # I6: a mark is neither free nor that of one slot, or both


cdef inline check_t check_header(const header_t *header) noexcept nogil:
    """That it is one, and I5."""
    cdef uint64_t left
    if header.magic != ARENA_MAGIC or header.layout != ARENA_LAYOUT:
        return CHECK_HEADER
    left = header.counters.insertions - header.counters.evictions - header.counters.deletions
    if left != header.size or header.size > header.capacity:
        return CHECK_COUNTERS
    return CHECK_OK


cdef inline uint64_t path_length(const slab_t *slab, slot_t slot) noexcept nogil:
    """Buckets that a live slot had to pass on its way from home."""
    cdef bucket_t *bucket = table_home(&slab.table, slab_hash(slab, slab_key(slab, slot)))
    cdef uint64_t passed
    cdef int cell
    for passed in range(slab.table.bucket_count):
        for cell in range(BUCKET_CELLS):
            if bucket.tags[cell] and bucket.slots[cell] == slot:
                return passed
        bucket = table_next(&slab.table, bucket)
    return slab.table.bucket_count


cdef inline check_t check_list(const slab_t *slab, uint64_t *passed, slot_t *culprit) noexcept nogil:
    """I2, and for each live slot I1 and I4; `passed` becomes the sum of all path lengths."""
    cdef header_t *header = slab.header
    cdef slot_t slot = lru_most_recent(&slab.lru), behind = NIL
    cdef uint64_t visited = 0
    while slot != NIL:
        culprit[0] = slot
        if slot > header.fresh or visited == header.size:
            return CHECK_FORWARD
        if lru_link(&slab.lru, slot).prev != behind:
            return CHECK_BACKWARD
        if slab_find(slab, slab_key(slab, slot)) != slot:
            return CHECK_LIVE_NOT_FOUND
        passed[0] += path_length(slab, slot)
        visited += 1
        behind = slot
        slot = lru_link(&slab.lru, slot).next
    if lru_least_recent(&slab.lru) != behind:
        return CHECK_BACKWARD
    return CHECK_OK if visited == header.size else CHECK_FORWARD


cdef inline check_t check_table(const slab_t *slab, uint64_t passed, uint64_t off_list) noexcept nogil:
    """The rest of I1: nothing else in the table, overflow counters right in sum."""
    cdef uint64_t index, filled = 0, overflow = 0
    cdef int cell
    for index in range(slab.table.bucket_count):
        for cell in range(BUCKET_CELLS):
            filled += slab.table.buckets[index].tags[cell] != 0
        overflow += slab.table.buckets[index].overflow
    if filled != slab.header.size + off_list:
        return CHECK_TABLE_EXTRA
    return CHECK_OK if overflow == passed else CHECK_OVERFLOW


cdef inline check_t check_free(const slab_t *slab, uint64_t off_list, slot_t *culprit) noexcept nogil:
    """I3: a recycled slot that were live too would be found from the key it still holds."""
    cdef header_t *header = slab.header
    cdef slot_t slot = header.free_head
    cdef uint64_t free = 0
    while slot != NIL:
        culprit[0] = slot
        if slot > header.fresh or free == header.fresh or slab_find(slab, slab_key(slab, slot)) == slot:
            return CHECK_FREE
        free += 1
        slot = lru_link(&slab.lru, slot).next
    if free + header.size + off_list != header.fresh or header.fresh > header.slot_count:
        return CHECK_FREE
    return CHECK_OK


cdef inline check_t check_trail(const slab_t *slab, slot_t *culprit) noexcept nogil:
    """The slots that coming evictions name are ones that there are."""
    cdef slot_t slot
    for slot in slab.header.trail.pushed:
        culprit[0] = slot
        if slot > slab.header.fresh:
            return CHECK_HINT
    for slot in slab.header.trail.coming:
        culprit[0] = slot
        if slot > slab.header.fresh:
            return CHECK_HINT
    return CHECK_OK


cdef inline check_t check_hints(const slab_t *slab, slot_t *culprit) noexcept nogil:
    """Hints are followed: a slot beyond those that were used may lie outside of the arena."""
    cdef slot_t slot = lru_most_recent(&slab.lru)
    while slot != NIL:
        culprit[0] = slot
        if lru_link(&slab.lru, slot).hint > slab.header.fresh:
            return CHECK_HINT
        slot = lru_link(&slab.lru, slot).next
    return check_trail(slab, culprit)


cdef inline check_t check_slab(const slab_t *slab, slot_t *culprit) noexcept nogil:
    """CHECK_OK, or the first broken invariant and the slot where it was seen. Needs the lock."""
    cdef uint64_t passed = 0
    cdef check_t status = check_header(slab.header)
    culprit[0] = NIL
    if status == CHECK_OK:
        status = check_list(slab, &passed, culprit)
    if status == CHECK_OK:
        status = check_table(slab, passed, 0)
    if status == CHECK_OK:
        status = check_free(slab, 0, culprit)
    if status == CHECK_OK:
        status = check_hints(slab, culprit)
    return status
