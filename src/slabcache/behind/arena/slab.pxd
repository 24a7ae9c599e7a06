"""The cache in front of a store: what `arena/slab.pxd` does, where the store may not have an entry yet.

There are `capacity` places in the LRU list and `capacity + max_pending` slots. A clean victim gives its slot
to the newcomer. An unsaved one is taken off the list, but not out of the table: it is pending, and the next
use links it back. Where `max_pending` are pending already, the least recent clean entry goes instead
(behind_oldest_clean); where there is none, every slot is unsaved, and a write has to wait.

A row that is not in memory comes from the caller: it says for each key what the store has, once it knows.
Each function needs the lock of the cache, none allocates, fails half-way or runs Python code.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from slabcache.arena.header cimport NIL, slot_t
from slabcache.arena.field cimport delta_t, field_add, field_t
from slabcache.arena.lru cimport link_t, lru_least_recent, lru_link, lru_most_recent, lru_unlink
from slabcache.behind.arena.marks cimport (
    STATE_DELETED,
    STATE_DIRTY,
    STATE_EVICTED,
    STATE_FAILING,
    STATE_FLUSHING,
    STATE_MASK,
    STATE_PASSED,
    STATE_REDIRTIED,
    link_is_marked,
    link_mark,
    link_set_free,
    link_set_used,
    mark_number_t,
    mark_set_state,
    mark_state,
    mark_t,
    marks_give_back,
)
from slabcache.machine.native cimport DEBUG, native_copy, native_now
from slabcache.behind.arena.ring cimport ring_append, ring_next, ring_oldest, ring_prepend, ring_unlink
from slabcache.behind.arena.room cimport room_fail, room_lose, room_settle, room_unused
from slabcache.arena.slab cimport (
    rows_t,
    slab_count_update,
    slab_evict,
    slab_export,
    slab_free,
    slab_hash,
    slab_key,
    slab_store,
    slab_take_free,
    slab_take_out,
    slab_value,
)
from slabcache.arena.table cimport table_erase, table_find, table_insert
from slabcache.behind.arena.unsaved cimport (
    SLEEP_UNTIL_DUE,
    behind_at,
    behind_clean,
    behind_is_current,
    behind_is_deleted,
    behind_is_full,
    behind_is_listed,
    behind_is_unsaved,
    behind_mark,
    behind_mark_at,
    behind_mark_of,
    behind_outdate,
    behind_push,
    behind_state,
    behind_t,
    behind_waits,
    behind_wake,
)


cdef enum outcome_t:
    OUTCOME_FOUND
    OUTCOME_ABSENT
    OUTCOME_UNKNOWN             # only the store knows; nothing has happened
    OUTCOME_FULL                # all slots are unsaved; nothing has happened
    OUTCOME_WRAPS               # a sum does not fit its field; nothing has happened

cdef enum stored_t:             # what is known of a key that is not in memory
    STORED_UNKNOWN = 0
    STORED_FOUND = 1
    STORED_ABSENT = 2
    STORED_SEEN = 3             # it was in memory a moment ago, under the same lock
    STORED_MASK = 3
    STORED_LATER = 4            # loaded after the call had begun: an answer to it, whatever was written since


cdef struct row_t:              # one key, and what the store has for it
    uint64_t hash
    const char *key
    char *value                 # room for one; what was loaded, in STORED_FOUND and STORED_SEEN
    stored_t stored
    uint64_t as_of              # number of the last write before the load began
    const char *default         # of an absent row, or NULL


cdef struct edit_t:             # what is done to a value in place
    const field_t *fields
    const delta_t *delta        # of fields[0]; NULL where fields are overwritten
    const char *data            # a value, whose `chosen` fields are taken
    const char *chosen          # one flag for each field
    Py_ssize_t count            # fields


# ---- making room -----------------------------------------------------------------------------------

cdef inline void behind_leave_place(behind_t *behind, slot_t slot) noexcept nogil:
    """Before a slot leaves its place in the LRU list: the search has not passed it any more."""
    cdef link_t *link = behind_at(behind, slot)
    cdef mark_t *mark
    cdef uint8_t state
    if behind.unsaved.cursor == NIL or not link_is_marked(link):     # mostly
        return
    if behind.unsaved.cursor == slot:
        behind.unsaved.cursor = link.next
    mark = behind_mark_of(behind, slot)
    state = mark_state(mark)
    mark_set_state(mark, state & ~<uint8_t>STATE_PASSED)
    if state == STATE_PASSED:           # overtaken
        ring_unlink(&behind.overtaken, link_mark(link))
        marks_give_back(&behind.marks, link)


cdef inline void behind_unlink(behind_t *behind, slot_t slot) noexcept nogil:
    """Take a slot off the LRU list, and out of the table not."""
    behind_leave_place(behind, slot)
    lru_unlink(&behind.slab.lru, slot)
    behind.slab.header.size -= 1
    behind.slab.header.version += 1


cdef inline void behind_admit(behind_t *behind, slot_t slot) noexcept nogil:
    """Put a slot that is in the table at the front of the LRU list, which has room."""
    behind_push(behind, slot)
    behind.slab.header.size += 1
    behind.slab.header.version += 1
    behind.slab.header.counters.insertions += 1


cdef inline void behind_touch(behind_t *behind, slot_t slot) noexcept nogil:
    """Make a slot of the LRU list the most recent."""
    behind_leave_place(behind, slot)
    if lru_most_recent(&behind.slab.lru) != slot:
        lru_unlink(&behind.slab.lru, slot)
        behind_push(behind, slot)
        behind.slab.header.version += 1


cdef inline slot_t behind_oldest_clean(behind_t *behind) noexcept nogil:
    """The overtaken entry that was saved first or, where there is none, the least recent clean entry of the
    LRU list, or NIL. O(1), amortised: the walk goes on where the last one ended, whatever was saved or used
    since, and each step of it passes an entry that has come to its place by a use of its own."""
    cdef uint64_t unsaved = behind.unsaved.count - behind.unsaved.pending - behind.unsaved.deleted
    cdef mark_number_t overtaken = ring_oldest(&behind.overtaken)
    cdef slot_t slot
    cdef mark_t *mark
    if overtaken:
        return behind.marks.marks[overtaken].slot
    if unsaved == behind.slab.header.size:
        return NIL
    slot = lru_link(&behind.slab.lru, behind.unsaved.cursor).prev   # of the sentinel: the least recent
    while behind_is_unsaved(behind, slot):
        mark = behind_mark_of(behind, slot)
        mark_set_state(mark, mark_state(mark) | STATE_PASSED)
        behind.unsaved.cursor = slot
        slot = lru_link(&behind.slab.lru, slot).prev
        if DEBUG:
            behind.unsaved.steps += 1
    return slot


cdef inline slot_t behind_evict(behind_t *behind, slot_t victim, rows_t *evicted) noexcept nogil:
    """Evict a clean entry of the LRU list; its slot, detached."""
    behind_leave_place(behind, victim)
    if victim == lru_least_recent(&behind.slab.lru):
        return slab_evict(&behind.slab, evicted, True)
    return slab_take_out(&behind.slab, victim, evicted)


cdef inline void behind_pend(behind_t *behind, slot_t victim, rows_t *evicted) noexcept nogil:
    """Evict an unsaved entry of the LRU list: it is pending then."""
    cdef mark_t *mark = behind_mark_of(behind, victim)
    behind_unlink(behind, victim)
    behind.slab.header.counters.evictions += 1
    if evicted is not NULL:
        slab_export(&behind.slab, victim, evicted)
    mark_set_state(mark, mark_state(mark) | STATE_EVICTED)
    behind.unsaved.pending += 1
    if behind_waits(behind, victim):
        ring_append(&behind.pending, victim)
        behind_wake(behind, SLEEP_UNTIL_DUE)


cdef inline void behind_free(behind_t *behind, slot_t slot) noexcept nogil:
    """Put a clean slot that is in no list, ring or table on the free chain."""
    link_set_free(behind_at(behind, slot))
    slab_free(&behind.slab, slot)


cdef inline bint behind_has_free(const behind_t *behind) noexcept nogil:
    return behind.slab.header.free_head != NIL or behind.slab.header.fresh < behind.slab.header.slot_count


cdef inline slot_t behind_take(behind_t *behind, bint listed, rows_t *evicted) noexcept nogil:
    """A slot in hand for a new entry, with `listed` and a place in the LRU list for it. NIL, and nothing
    changed, when all slots are unsaved."""
    cdef slot_t victim
    if listed and behind.slab.header.size == behind.slab.header.capacity:
        victim = lru_least_recent(&behind.slab.lru)
        if not behind_is_unsaved(behind, victim):
            return behind_evict(behind, victim, evicted)
        if behind_has_free(behind) and behind.unsaved.pending < behind.unsaved.max_pending:
            behind_pend(behind, victim, evicted)
            return slab_take_free(&behind.slab)
    elif behind_has_free(behind):
        return slab_take_free(&behind.slab)
    victim = behind_oldest_clean(behind)
    return NIL if victim == NIL else behind_evict(behind, victim, evicted)


cdef inline void behind_link(behind_t *behind, slot_t slot, rows_t *evicted) noexcept nogil:
    """Put a slot that is in the table alone at the front of the LRU list; it has or gets a place there."""
    cdef slot_t victim
    if behind.slab.header.size == behind.slab.header.capacity:
        victim = lru_least_recent(&behind.slab.lru)
        if not behind_is_unsaved(behind, victim):
            behind_free(behind, behind_evict(behind, victim, evicted))
        else:
            behind_pend(behind, victim, evicted)
    behind_admit(behind, slot)


cdef inline void behind_unpend(behind_t *behind, slot_t slot) noexcept nogil:
    """A pending slot is no longer evicted."""
    cdef mark_t *mark = behind_mark_of(behind, slot)
    if behind_waits(behind, slot):
        ring_unlink(&behind.pending, slot)
    mark_set_state(mark, mark_state(mark) & ~<uint8_t>STATE_EVICTED)
    behind.unsaved.pending -= 1


cdef inline void behind_use(behind_t *behind, slot_t slot, rows_t *evicted) noexcept nogil:
    """Make a live slot the most recent; a pending one is linked back."""
    if behind_state(behind, slot) & STATE_EVICTED:
        behind_unpend(behind, slot)
        behind_link(behind, slot, evicted)
    else:
        behind_touch(behind, slot)


cdef inline void behind_revive(behind_t *behind, slot_t slot, rows_t *evicted) noexcept nogil:
    """Make a tombstone, whose value has been written, a live entry."""
    cdef mark_t *mark = behind_mark_of(behind, slot)
    mark_set_state(mark, mark_state(mark) & ~<uint8_t>STATE_DELETED)
    behind.unsaved.deleted -= 1
    behind_link(behind, slot, evicted)


cdef inline slot_t behind_insert(
    behind_t *behind, const row_t *row, const char *value, rows_t *evicted
) noexcept nogil:
    """Create the clean entry of a key that is not in memory; NIL when there is no room."""
    cdef slot_t slot = behind_take(behind, True, evicted)
    if slot != NIL:
        link_set_used(behind_at(behind, slot))
        slab_store(&behind.slab, slot, row.hash, row.key, value)
        behind_admit(behind, slot)
    return slot


# ---- one row ---------------------------------------------------------------------------------------

cdef inline bint behind_is_newest(const behind_t *behind, const row_t *row) noexcept nogil:
    """Whether what is known of a key that is not in memory is what it has now."""
    return row.stored == STORED_SEEN or behind_is_current(behind, row.hash, row.as_of)


cdef inline outcome_t behind_stored(
    const behind_t *behind, const row_t *row, const char **value
) noexcept nogil:
    """What a key that is not in memory has: the row that was loaded, the default, or nothing."""
    if row.stored == STORED_UNKNOWN:
        return OUTCOME_UNKNOWN
    if not row.stored & STORED_LATER and not behind_is_newest(behind, row):
        return OUTCOME_UNKNOWN
    value[0] = row.default if row.stored & STORED_MASK == STORED_ABSENT else row.value
    return OUTCOME_ABSENT if value[0] is NULL else OUTCOME_FOUND


cdef inline outcome_t behind_look(
    const behind_t *behind, slot_t slot, const row_t *row, const char **value
) noexcept nogil:
    """What a key has now; `slot` is where it is in memory, or NIL. A tombstone has the default."""
    if slot == NIL:
        return behind_stored(behind, row, value)
    value[0] = row.default if behind_is_deleted(behind, slot) else slab_value(&behind.slab, slot)
    return OUTCOME_ABSENT if value[0] is NULL else OUTCOME_FOUND


cdef inline void behind_hit(behind_t *behind, slot_t slot, char *target, bint moves) noexcept nogil:
    """Copy the value of a slot of the LRU list."""
    native_copy(target, slab_value(&behind.slab, slot), behind.slab.header.value_size)
    if moves:
        behind_touch(behind, slot)


cdef inline outcome_t behind_read(
    behind_t *behind, slot_t slot, const row_t *row, bint counted, bint moves
) noexcept nogil:
    """Copy the value of a key to `row.value`."""
    cdef const char *value = NULL
    cdef outcome_t outcome = OUTCOME_FOUND
    if slot != NIL and behind_is_listed(behind, slot):      # mostly
        behind_hit(behind, slot, row.value, moves)
    else:
        outcome = behind_look(behind, slot, row, &value)
        if outcome == OUTCOME_UNKNOWN:
            return outcome
        if moves and slot != NIL and not behind_is_deleted(behind, slot):
            behind_use(behind, slot, NULL)
        elif moves and slot == NIL and outcome == OUTCOME_FOUND and behind_is_newest(behind, row):
            behind_insert(behind, row, value, NULL)         # without room the row is returned uncached
        if value is not NULL and value is not row.value:
            native_copy(row.value, value, behind.slab.header.value_size)
    if counted:
        if slot != NIL and outcome == OUTCOME_FOUND and row.stored == STORED_UNKNOWN:
            behind.slab.header.counters.hits += 1
        else:
            behind.slab.header.counters.misses += 1
    return outcome


cdef inline bint behind_write(
    behind_t *behind, slot_t slot, const row_t *row, const char *value, uint64_t now, rows_t *evicted
) noexcept nogil:
    """Make `value` that of a key, whose entry is the most recent then, and unsaved; whether it had one. There
    is room."""
    cdef mark_t *mark = behind.marks.marks
    cdef uint8_t state = STATE_DELETED
    if slot == NIL:
        slot = behind_insert(behind, row, value, evicted)
    else:
        mark = behind_mark_at(behind, slot)
        state = mark_state(mark)
        native_copy(slab_value(&behind.slab, slot), value, behind.slab.header.value_size)
        if not state & (STATE_DELETED | STATE_EVICTED):     # mostly
            behind_touch(behind, slot)
        elif state & STATE_EVICTED:
            behind_use(behind, slot, evicted)
        else:
            behind_revive(behind, slot, evicted)
    behind_mark(behind, slot, mark, now)
    return not state & STATE_DELETED


cdef inline outcome_t behind_put(
    behind_t *behind, slot_t slot, const row_t *row, const char *value, uint64_t now, rows_t *evicted
) noexcept nogil:
    """Create or overwrite the entry of a key."""
    if slot == NIL and behind_is_full(behind):
        return OUTCOME_FULL
    if behind_write(behind, slot, row, value, now, evicted):
        slab_count_update(&behind.slab)
    return OUTCOME_FOUND


cdef inline bint edit_apply(const edit_t *edit, char *value) noexcept nogil:
    """Change a value in place; False, and nothing changed, when a sum does not fit."""
    cdef Py_ssize_t position
    if edit.delta is not NULL:
        return field_add(edit.fields, value + edit.fields.offset, edit.delta)
    for position in range(edit.count):
        if edit.chosen[position]:
            memcpy(
                value + edit.fields[position].offset,
                edit.data + edit.fields[position].offset,
                edit.fields[position].size,
            )
    return True


cdef inline outcome_t behind_edit(
    behind_t *behind, slot_t slot, const row_t *row, const edit_t *edit, uint64_t now
) noexcept nogil:
    """Change the value of a key, which is in `row.value` afterwards."""
    cdef const char *value = NULL
    cdef outcome_t outcome = behind_look(behind, slot, row, &value)
    if outcome != OUTCOME_FOUND:
        return outcome
    if slot == NIL and behind_is_full(behind):
        return OUTCOME_FULL
    if value is not row.value:
        native_copy(row.value, value, behind.slab.header.value_size)
    if not edit_apply(edit, row.value):
        return OUTCOME_WRAPS
    slab_count_update(&behind.slab)
    behind_write(behind, slot, row, row.value, now, NULL)
    return OUTCOME_FOUND


cdef inline slot_t behind_bury(behind_t *behind, const row_t *row) noexcept nogil:
    """A slot for the tombstone of a key that is not in memory. There is room."""
    cdef slot_t slot = behind_take(behind, False, NULL)
    native_copy(<char *>slab_key(&behind.slab, slot), row.key, behind.slab.table.key_size)
    table_insert(&behind.slab.table, row.hash, slot)
    link_set_used(behind_at(behind, slot))
    behind.slab.header.counters.insertions += 1
    return slot


cdef inline outcome_t behind_delete(
    behind_t *behind, slot_t slot, const row_t *row, uint64_t now
) noexcept nogil:
    """Delete a key; the value that it had is copied to `row.value`."""
    cdef const char *value = NULL
    cdef outcome_t outcome = behind_look(behind, slot, row, &value)
    cdef bint has_row = row.stored & STORED_MASK != STORED_ABSENT if slot == NIL else not behind_is_deleted(
        behind, slot
    )
    cdef mark_t *mark
    if outcome != OUTCOME_FOUND:
        return outcome
    if has_row and slot == NIL and behind_is_full(behind):
        return OUTCOME_FULL
    if value is not row.value:
        native_copy(row.value, value, behind.slab.header.value_size)
    if not has_row:                     # there is nothing but a default
        return OUTCOME_FOUND
    if slot == NIL:
        slot = behind_bury(behind, row)
        behind.slab.header.version += 1
    elif behind_state(behind, slot) & STATE_EVICTED:
        behind_unpend(behind, slot)
        behind.slab.header.counters.insertions += 1     # it had counted as evicted
        behind.slab.header.version += 1
    else:
        behind_unlink(behind, slot)
    behind_mark(behind, slot, behind_mark_at(behind, slot), now)
    mark = behind_mark_of(behind, slot)
    mark_set_state(mark, mark_state(mark) | STATE_DELETED)
    behind.unsaved.deleted += 1
    behind.slab.header.counters.deletions += 1
    return OUTCOME_FOUND


cdef inline bint behind_invalidate(behind_t *behind, slot_t slot, uint64_t hash) noexcept nogil:
    """Have the next use of a key ask the store; False, and nothing changed, when it is unsaved."""
    if slot != NIL:
        if behind_is_unsaved(behind, slot):
            return False
        behind_free(behind, behind_evict(behind, slot, NULL))
        behind.slab.header.version += 1
    behind_outdate(behind, hash)
    return True


# ---- writing behind --------------------------------------------------------------------------------

cdef struct drained_t:          # rows on their way to the store, in arrays of the caller
    slot_t *slots
    uint64_t *since             # of each row: when it became dirty
    uint8_t *deleted            # of each row: whether it is to be deleted
    rows_t rows


cdef inline void behind_load(behind_t *behind, slot_t slot, drained_t *drained) noexcept nogil:
    """Take a slot on the dirty ring into a batch."""
    cdef mark_t *mark = behind_mark_of(behind, slot)
    cdef uint8_t flags = mark_state(mark) & ~<uint8_t>STATE_MASK
    cdef size_t row = drained.rows.count
    mark_set_state(mark, flags | STATE_FLUSHING)
    drained.slots[row] = slot
    drained.since[row] = mark.since
    drained.deleted[row] = flags & STATE_DELETED != 0
    slab_export(&behind.slab, slot, &drained.rows)


cdef inline void behind_drain(
    behind_t *behind, uint64_t until, size_t limit, drained_t *drained
) noexcept nogil:
    """Take what is to be written next, at most `limit` rows, for one batch: what became dirty no later than
    `until`, oldest first, so that nothing that is written later holds it up; then pending entries. No other
    batch is under way."""
    cdef mark_number_t oldest = ring_oldest(&behind.dirty)
    cdef slot_t slot
    while drained.rows.count < limit:
        if oldest and behind.marks.marks[oldest].since <= until:
            slot = behind.marks.marks[oldest].slot
            oldest = ring_next(&behind.dirty, oldest)
        else:
            slot = ring_oldest(&behind.pending)
        if slot == NIL:
            break
        if behind_state(behind, slot) & STATE_EVICTED and behind_waits(behind, slot):
            ring_unlink(&behind.pending, slot)
        behind_load(behind, slot, drained)


cdef inline void behind_put_aside(
    behind_t *behind, const slot_t *slots, const uint64_t *since, size_t count
) noexcept nogil:
    """Rows of a batch that the store did not take, each by itself: no batch takes them until they are asked
    for. They are as old as they were, also where they were written since."""
    cdef size_t row
    cdef slot_t slot
    cdef mark_number_t number
    cdef mark_t *mark
    cdef uint8_t state
    for row in range(count):
        slot = slots[row]
        state = behind_state(behind, slot)
        if state & STATE_MASK != STATE_REDIRTIED and state & STATE_MASK != STATE_FLUSHING:
            continue
        if state & STATE_EVICTED and behind_waits(behind, slot):
            ring_unlink(&behind.pending, slot)
        number = link_mark(behind_at(behind, slot))
        ring_unlink(&behind.dirty, number)
        mark = behind.marks.marks + number
        mark.since = since[row]
        mark_set_state(mark, (state & ~<uint8_t>STATE_MASK) | STATE_DIRTY | STATE_FAILING)
        behind.unsaved.failing += 1
        room_lose(behind)


cdef inline void behind_take_again(
    behind_t *behind, const slot_t *slots, size_t count, drained_t *drained
) noexcept nogil:
    """Take failing rows into a batch. The dirty ring stays in order: they count as old as its oldest if they
    are not older. No other batch is under way."""
    cdef size_t row
    cdef slot_t slot
    cdef mark_number_t number, oldest
    cdef mark_t *mark
    for row in range(count):
        slot = slots[row]
        if not behind_state(behind, slot) & STATE_FAILING:
            continue
        number = link_mark(behind_at(behind, slot))
        mark = behind.marks.marks + number
        oldest = ring_oldest(&behind.dirty)
        if oldest:
            mark.since = min(mark.since, behind.marks.marks[oldest].since)
        ring_prepend(&behind.dirty, number)
        mark_set_state(mark, mark_state(mark) & ~<uint8_t>STATE_FAILING)
        behind.unsaved.failing -= 1
        behind_load(behind, slot, drained)


cdef inline void behind_settle(
    behind_t *behind, const slot_t *slots, size_t count, bint saved
) noexcept nogil:
    """The store has confirmed rows of a batch or, where not `saved`, refused them for good: then those that
    were not written since leave memory."""
    cdef uint64_t unused = room_unused(behind)
    cdef size_t row
    cdef slot_t slot
    cdef uint8_t state, flags
    cdef uint64_t hash
    for row in range(count):
        slot = slots[row]
        state = behind_state(behind, slot)
        if state & STATE_MASK == STATE_REDIRTIED:
            state = (state & ~<uint8_t>STATE_MASK) | STATE_DIRTY
            mark_set_state(behind_mark_of(behind, slot), state)
            continue
        if state & STATE_MASK != STATE_FLUSHING:
            continue
        hash = slab_hash(&behind.slab, slab_key(&behind.slab, slot))
        flags = behind_clean(behind, slot, hash)
        if flags & (STATE_EVICTED | STATE_DELETED):
            behind.unsaved.pending -= flags & STATE_EVICTED != 0
            behind.unsaved.deleted -= flags & STATE_DELETED != 0
            table_erase(&behind.slab.table, hash, slot)
            behind_free(behind, slot)
        elif not saved:
            behind_free(behind, behind_evict(behind, slot, NULL))
    room_settle(behind, unused)


cdef inline void behind_restore(
    behind_t *behind, const slot_t *slots, const uint64_t *since, size_t count
) noexcept nogil:
    """The store has not taken a batch: its rows are dirty again, as old as they were. So are those written
    since, or as old as the oldest of all where that is older: `flush()` waits for what they were, too."""
    cdef size_t row
    cdef slot_t slot
    cdef mark_number_t number, oldest
    cdef mark_t *mark
    cdef uint8_t state
    for row in range(count, 0, -1):
        slot = slots[row - 1]
        state = behind_state(behind, slot)
        if state & STATE_MASK != STATE_REDIRTIED and state & STATE_MASK != STATE_FLUSHING:
            continue
        number = link_mark(behind_at(behind, slot))
        mark = behind.marks.marks + number
        if state & STATE_MASK == STATE_REDIRTIED:
            ring_unlink(&behind.dirty, number)
            oldest = ring_oldest(&behind.dirty)
            mark.since = since[row - 1]
            if oldest:
                mark.since = min(mark.since, behind.marks.marks[oldest].since)
            ring_prepend(&behind.dirty, number)
        elif state & STATE_EVICTED:
            ring_prepend(&behind.pending, slot)
        mark_set_state(mark, (state & ~<uint8_t>STATE_MASK) | STATE_DIRTY)
        room_fail(behind)
