"""The invariant walker: I1 to I6 of the design over a whole arena. O(capacity), allocates nothing.

Debug builds call it after each change of a small cache; `SlabCache._check` does so on demand.
"""

from libc.stdint cimport uint8_t, uint64_t

from slabcache.arena.header cimport ARENA_LAYOUT, ARENA_MAGIC, BUCKET_CELLS, NIL, header_t, slot_t
from slabcache.arena.lru cimport link_t, lru_least_recent, lru_link, lru_most_recent
from slabcache.behind.arena.marks cimport (
    MARKED,
    STATE_CLEAN,
    STATE_DELETED,
    STATE_DIRTY,
    STATE_EVICTED,
    STATE_FAILING,
    STATE_MASK,
    STATE_PASSED,
    link_is_free,
    link_is_marked,
    link_mark,
    mark_number_t,
    mark_state,
    mark_t,
    marks_of,
    marks_t,
)
from slabcache.behind.arena.ring cimport ring_next, ring_oldest, ring_place, ring_t
from slabcache.arena.slab cimport slab_find, slab_hash, slab_key, slab_t
from slabcache.arena.table cimport bucket_t, table_home, table_next
from slabcache.behind.arena.unsaved cimport (
    behind_at,
    behind_attach,
    behind_state,
    behind_t,
    behind_waits,
)


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
        if not header.pool_at and lru_link(&slab.lru, slot).hint > header.fresh:
            return CHECK_HINT
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
        if header.pool_at and lru_link(&slab.lru, slot).hint != MARKED:
            return CHECK_FREE
        free += 1
        slot = lru_link(&slab.lru, slot).next
    if free + header.size + off_list != header.fresh or header.fresh > header.slot_count:
        return CHECK_FREE
    return CHECK_OK


cdef inline check_t check_trail(const slab_t *slab, slot_t *culprit) noexcept nogil:
    """Hints are followed: a slot beyond those that were used may lie outside of the arena."""
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


cdef inline check_t check_ring(const behind_t *behind, const ring_t *ring, uint64_t length) noexcept nogil:
    """I6: a ring has so many slots, or marks, forward and backward alike."""
    cdef slot_t slot = ring_oldest(ring), older = NIL
    cdef uint64_t visited = 0
    while slot != NIL:
        if slot > behind.slab.header.fresh or visited == length or ring_place(ring, slot).prev != older:
            return CHECK_UNSAVED
        visited += 1
        older = slot
        slot = ring_next(ring, slot)
    return CHECK_OK if visited == length and ring_place(ring, NIL).prev == older else CHECK_UNSAVED


cdef inline check_t check_words(const behind_t *behind, slot_t *culprit) noexcept nogil:
    """Of each slot: the word that is a hint, or leads to a mark that leads back; so no two have one mark."""
    cdef const marks_t *marks = &behind.marks
    cdef slot_t fresh = behind.slab.header.fresh
    cdef uint64_t number
    cdef slot_t slot, hint
    cdef const link_t *link
    for number in range(1, <uint64_t>fresh + 1):
        slot = <slot_t>number
        culprit[0] = slot
        link = behind_at(behind, slot)
        if link_is_free(link):
            continue
        hint = link.hint
        if link_is_marked(link):
            if link_mark(link) > marks.pool.fresh or marks_of(marks, link).slot != slot:
                return CHECK_MARKS
            hint = marks_of(marks, link).hint
        if hint > fresh:
            return CHECK_HINT
    return CHECK_OK


cdef inline check_t check_marks(const behind_t *behind, slot_t *culprit) noexcept nogil:
    """Of each mark ever taken: it is free, or that of an unsaved or overtaken slot that leads to it."""
    cdef const marks_t *marks = &behind.marks
    cdef const mark_t *mark
    cdef mark_number_t number = marks.pool.fresh
    cdef uint64_t free = 0, overtaken = 0
    culprit[0] = NIL
    if number > behind.slab.header.slot_count:
        return CHECK_MARKS
    for number in range(marks.pool.fresh, 0, -1):
        mark = marks.marks + number
        culprit[0] = mark.slot
        if mark.slot == NIL:
            free += 1
        elif mark.slot > behind.slab.header.fresh or behind_at(behind, mark.slot).hint != (MARKED | number):
            return CHECK_MARKS
        else:
            overtaken += mark_state(mark) == STATE_PASSED
    culprit[0] = NIL
    if free + overtaken + behind.unsaved.count != marks.pool.fresh:
        return CHECK_MARKS
    number = marks.pool.free
    while number and free:
        if number > marks.pool.fresh or marks.marks[number].slot != NIL:
            return CHECK_MARKS
        number = marks.marks[number].next
        free -= 1
    return CHECK_OK if number == 0 and free == 0 else CHECK_MARKS


cdef inline check_t check_passed(const behind_t *behind, uint64_t count, slot_t *culprit) noexcept nogil:
    """I6: the entries that are passed, `count` of them, are those up to the cursor; the clean ones among them
    are on the overtaken ring."""
    cdef uint64_t overtaken = 0
    cdef slot_t slot = NIL
    cdef mark_number_t number
    while count:
        slot = lru_link(&behind.slab.lru, slot).prev
        culprit[0] = slot
        if slot == NIL or not behind_state(behind, slot) & STATE_PASSED:
            return CHECK_UNSAVED
        overtaken += behind_state(behind, slot) == STATE_PASSED
        count -= 1
    if slot != behind.unsaved.cursor or check_ring(behind, &behind.overtaken, overtaken) != CHECK_OK:
        return CHECK_UNSAVED
    number = ring_oldest(&behind.overtaken)
    while number:
        culprit[0] = behind.marks.marks[number].slot
        if mark_state(&behind.marks.marks[number]) != STATE_PASSED:
            return CHECK_UNSAVED
        number = ring_next(&behind.overtaken, number)
    culprit[0] = NIL
    return CHECK_OK


cdef inline check_t check_states(const behind_t *behind, uint64_t *passed, slot_t *culprit) noexcept nogil:
    """I6, and I1 for the slots that are not on the LRU list."""
    cdef uint64_t unsaved = 0, waiting = 0, pending = 0, deleted = 0, failing = 0, free = 0, gone_past = 0
    cdef uint64_t number
    cdef slot_t slot
    cdef uint8_t state
    for number in range(1, <uint64_t>behind.slab.header.fresh + 1):
        slot = <slot_t>number
        culprit[0] = slot
        if link_is_free(behind_at(behind, slot)):
            free += 1
            continue
        state = behind_state(behind, slot)
        if (state != STATE_CLEAN) != link_is_marked(behind_at(behind, slot)):
            return CHECK_MARKS
        gone_past += state & STATE_PASSED != 0
        unsaved += state & STATE_MASK != STATE_CLEAN
        pending += state & STATE_EVICTED != 0
        waiting += state & STATE_EVICTED != 0 and behind_waits(behind, slot)
        deleted += state & STATE_DELETED != 0
        failing += state & STATE_FAILING != 0
        if state & STATE_FAILING and state & STATE_MASK != STATE_DIRTY:
            return CHECK_UNSAVED
        if state & (STATE_EVICTED | STATE_DELETED):
            if state & STATE_EVICTED and state & STATE_DELETED:
                return CHECK_UNSAVED
            if slab_find(&behind.slab, slab_key(&behind.slab, slot)) != slot:
                return CHECK_LIVE_NOT_FOUND
            passed[0] += path_length(&behind.slab, slot)
    culprit[0] = NIL
    if unsaved != behind.unsaved.count or pending != behind.unsaved.pending:
        return CHECK_UNSAVED
    if deleted != behind.unsaved.deleted or pending > behind.unsaved.max_pending:
        return CHECK_UNSAVED
    if failing != behind.unsaved.failing:
        return CHECK_UNSAVED
    if behind.unsaved.keeper > behind.unsaved.tickets or behind.unsaved.kept > behind.slab.header.slot_count:
        return CHECK_UNSAVED
    if free + pending + deleted + behind.slab.header.size != behind.slab.header.fresh:
        return CHECK_FREE
    if check_passed(behind, gone_past, culprit) != CHECK_OK:
        return CHECK_UNSAVED
    return check_ring(behind, &behind.pending, waiting)


cdef inline check_t check_behind(const behind_t *behind, uint64_t *passed, slot_t *culprit) noexcept nogil:
    """All of I6, and I1 for the slots that are not on the LRU list."""
    cdef mark_number_t number
    cdef mark_t *mark
    cdef slot_t slot
    cdef uint64_t since = 0
    cdef check_t status = check_words(behind, culprit)
    if status == CHECK_OK:
        status = check_marks(behind, culprit)
    if status == CHECK_OK:
        status = check_states(behind, passed, culprit)
    if status == CHECK_OK:
        status = check_ring(behind, &behind.dirty, behind.unsaved.count - behind.unsaved.failing)
    if status != CHECK_OK:
        return status
    number = ring_oldest(&behind.dirty)
    while number:
        mark = behind.marks.marks + number
        culprit[0] = mark.slot
        if mark.slot == NIL or mark.since < since or mark.stamp & STATE_FAILING:
            return CHECK_UNSAVED
        since = mark.since
        number = ring_next(&behind.dirty, number)
    slot = ring_oldest(&behind.pending)
    while slot != NIL:
        culprit[0] = slot
        if not behind_state(behind, slot) & STATE_EVICTED or not behind_waits(behind, slot):
            return CHECK_UNSAVED
        slot = ring_next(&behind.pending, slot)
    return CHECK_OK


cdef inline check_t check_slab(const slab_t *slab, slot_t *culprit) noexcept nogil:
    """CHECK_OK, or the first broken invariant and the slot where it was seen. Needs the lock."""
    cdef header_t *header = slab.header
    cdef uint64_t passed = 0, left, off_list = 0
    cdef behind_t behind
    cdef check_t status
    culprit[0] = NIL
    if header.magic != ARENA_MAGIC or header.layout != ARENA_LAYOUT:
        return CHECK_HEADER
    left = header.counters.insertions - header.counters.evictions - header.counters.deletions
    if left != header.size or header.size > header.capacity:
        return CHECK_COUNTERS
    status = check_list(slab, &passed, culprit)
    if status == CHECK_OK and header.pool_at:
        behind_attach(&behind, header)
        off_list = behind.unsaved.pending + behind.unsaved.deleted
        status = check_behind(&behind, &passed, culprit)
    if status == CHECK_OK:
        status = check_table(slab, passed, off_list)
    if status == CHECK_OK:
        status = check_free(slab, off_list, culprit)
    if status == CHECK_OK:
        status = check_trail(slab, culprit)
    return status
