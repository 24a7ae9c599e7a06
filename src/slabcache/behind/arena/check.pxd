"""The invariant walker of a cache before a store: I6 of the design, and what arena/check.pxd walks."""

from libc.stdint cimport uint8_t, uint64_t

from slabcache.arena.check cimport (
    CHECK_FREE,
    CHECK_HINT,
    CHECK_LIVE_NOT_FOUND,
    CHECK_MARKS,
    CHECK_OK,
    CHECK_UNSAVED,
    check_free,
    check_header,
    check_list,
    check_t,
    check_table,
    check_trail,
    path_length,
)
from slabcache.arena.header cimport NIL, slot_t
from slabcache.arena.lru cimport link_t, lru_link
from slabcache.arena.slab cimport slab_find, slab_key
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
from slabcache.behind.arena.unsaved cimport behind_at, behind_state, behind_t, behind_waits


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


cdef inline check_t check_unsaved(const behind_t *behind, uint64_t *passed, slot_t *culprit) noexcept nogil:
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


cdef inline check_t check_chain(const behind_t *behind, uint64_t off_list, slot_t *culprit) noexcept nogil:
    """I3, and that the free slots are marked as such."""
    cdef check_t status = check_free(&behind.slab, off_list, culprit)
    cdef slot_t slot = behind.slab.header.free_head
    while status == CHECK_OK and slot != NIL:
        if not link_is_free(behind_at(behind, slot)):
            culprit[0] = slot
            status = CHECK_FREE
        slot = behind_at(behind, slot).next
    return status


cdef inline check_t check_behind(const behind_t *behind, slot_t *culprit) noexcept nogil:
    """CHECK_OK, or the first broken invariant and the slot where it was seen. Needs the lock."""
    cdef uint64_t passed = 0, off_list = behind.unsaved.pending + behind.unsaved.deleted
    cdef check_t status = check_header(behind.slab.header)
    culprit[0] = NIL
    if status == CHECK_OK:
        status = check_list(&behind.slab, &passed, culprit)
    if status == CHECK_OK:
        status = check_unsaved(behind, &passed, culprit)
    if status == CHECK_OK:
        status = check_table(&behind.slab, passed, off_list)
    if status == CHECK_OK:
        status = check_chain(behind, off_list, culprit)
    if status == CHECK_OK:
        status = check_trail(&behind.slab, culprit)
    return status
