"""Batch kernels of a cache before a store: loops of the calls in `slab.pxd`, without the GIL.

A read stops at the first row that only the store knows; the caller loads what is missing and goes on from
there. Changes are prepared first: the rows that are missing, and the room that they take; then they run in
one go.
Each function needs the lock of the cache. The views are passed by value, see `arena/batch.pxd`.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from slabcache.arena.header cimport NIL, slot_t
from slabcache.behind.arena.slab cimport (
    OUTCOME_FOUND,
    OUTCOME_UNKNOWN,
    OUTCOME_WRAPS,
    STORED_ABSENT,
    STORED_FOUND,
    STORED_FRESH,
    STORED_MASK,
    STORED_SEEN,
    STORED_UNKNOWN,
    behind_delete,
    behind_edit,
    behind_hit,
    behind_invalidate,
    behind_put,
    behind_read,
    edit_t,
    outcome_t,
    row_t,
    stored_t,
)
from slabcache.arena.field cimport delta_t
from slabcache.arena.lookahead cimport (
    DISTANCE,
    RING_ROWS,
    column_row,
    column_t,
    lookahead_hash,
    lookahead_key,
    lookahead_next,
    lookahead_start,
    lookahead_t,
)
from slabcache.behind.arena.marks cimport STATE_DELETED, link_is_free, link_is_marked
from slabcache.machine.native cimport native_by_key_size, native_copy, native_equal, native_prefetch
from slabcache.behind.arena.room cimport room_expire, room_free, room_give_up, room_t, room_takes, room_unused
from slabcache.arena.slab cimport rows_t, slab_find, slab_hash, slab_key, slab_value
from slabcache.arena.table cimport table_find
from slabcache.behind.arena.unsaved cimport (
    behind_at,
    behind_is_current,
    behind_is_listed,
    behind_mark_of,
    behind_state,
    behind_t,
)


cdef enum:
    NEAR_SLOTS = 4096           # that the caches of a processor hold

cdef enum:                      # of a change
    STATUS_DONE = 0
    STATUS_MISSING = 1          # rows are not in memory
    STATUS_FULL = 2             # there is too little room
    STATUS_OTHER = 3            # the value is another than was expected


cdef struct request_t:          # rows of a batch call, and what the store has for them
    column_t keys
    size_t rows
    column_t values             # of each row: what was loaded, then the result
    uint8_t *stored             # stored_t of each row; NULL, as `since`, while the store was not asked
    uint64_t *since             # of each row: number of the last write before its load
    uint8_t *found              # of each row, a result
    const char *default         # or NULL
    const uint8_t *first        # whether a row is the first of its key; NULL where that does not matter
    bint creates                # absent rows become unsaved as well
    uint64_t ticket             # of a change that has waited for room; 0 before


cdef struct only_t:             # the only row of a change
    row_t row
    slot_t slot                 # where it is in memory, or NIL
    const char *value           # what it has: in memory, in the store, or by default; or NULL
    stored_t stored             # what was known of it before
    uint64_t since


cdef inline slot_t through_find(const lookahead_t *ahead, const behind_t *behind, size_t row) noexcept nogil:
    """What `table_find` returns. A slot that was freed meanwhile may still hold the key, so it is marked."""
    cdef slot_t slot = ahead.candidates[row % RING_ROWS]
    cdef const char *key = lookahead_key(ahead, &behind.slab, row)
    if slot != NIL and native_equal(slab_key(&behind.slab, slot), key, behind.slab.table.key_size):
        if not link_is_free(behind_at(behind, slot)):
            return slot
    return table_find(&behind.slab.table, lookahead_hash(ahead, row), key)


cdef inline row_t request_row(
    const request_t *request, const lookahead_t *ahead, const behind_t *behind, size_t row, size_t at
) noexcept nogil:
    """Row `at` of a request, which is row `row` of those that are looked ahead at."""
    cdef row_t it
    it.hash = lookahead_hash(ahead, row)
    it.key = lookahead_key(ahead, &behind.slab, row)
    it.value = column_row(request.values, at)
    it.stored = STORED_UNKNOWN if request.stored is NULL else <stored_t>request.stored[at]
    it.since = 0 if request.stored is NULL else request.since[at]
    it.default = request.default
    return it


cdef inline column_t rows_from(column_t column, size_t row) noexcept nogil:
    column.base = column_row(column, row)
    return column


cdef inline void through_mark(
    const lookahead_t *ahead, const behind_t *behind, size_t rows, size_t row
) noexcept nogil:
    """Fetch the mark of a row to come. Its slot has been fetched."""
    cdef slot_t slot
    if row + DISTANCE < rows:
        slot = ahead.candidates[(row + DISTANCE) % RING_ROWS]
        if slot != NIL and link_is_marked(behind_at(behind, slot)):
            native_prefetch(behind_mark_of(behind, slot))


cdef inline size_t read_rows(
    behind_t behind, request_t request, size_t start, bint counted, bint moves
) noexcept nogil:
    cdef lookahead_t ahead
    cdef column_t keys = rows_from(request.keys, start)
    cdef size_t row, at, rows = request.rows - start, size = behind.slab.header.value_size
    cdef size_t fetched = rows if behind.slab.header.slot_count > NEAR_SLOTS else 0
    cdef uint64_t hits = 0
    cdef slot_t slot
    cdef row_t it
    cdef outcome_t outcome = OUTCOME_FOUND
    lookahead_start(&ahead, &behind.slab, keys, rows, moves)
    for row in range(rows):
        lookahead_next(&ahead, &behind.slab, keys, rows, row, moves)
        through_mark(&ahead, &behind, fetched, row)
        at = start + row
        slot = through_find(&ahead, &behind, row)
        if slot != NIL and request.stored is NULL and behind_is_listed(&behind, slot):     # mostly
            behind_hit(&behind, slot, column_row(request.values, at), moves)
            hits += 1
            request.found[at] = True
            continue
        it = request_row(&request, &ahead, &behind, row, at)
        outcome = behind_read(&behind, slot, &it, counted, moves)
        if outcome == OUTCOME_UNKNOWN:
            break
        request.found[at] = outcome == OUTCOME_FOUND
        if outcome != OUTCOME_FOUND:
            memset(it.value, 0, size)
    if counted:
        behind.slab.header.counters.hits += hits
    return at if outcome == OUTCOME_UNKNOWN else request.rows


cdef inline size_t through_read(
    behind_t behind, request_t request, size_t start, bint counted, bint moves
) noexcept nogil:
    """`get` (counted, moves), `touch` (moves) or `peek` of the rows from `start` on; the first row that only
    the store knows, or the number of rows."""
    return native_by_key_size(behind.slab.table.key_size, read_rows(behind, request, start, counted, moves))


cdef inline size_t through_missing(
    behind_t behind, request_t request, size_t start, int64_t *missing
) noexcept nogil:
    """The rows from `start` on that only the store knows; how many."""
    cdef lookahead_t ahead
    cdef column_t keys = rows_from(request.keys, start)
    cdef size_t row, at, count = 0, rows = request.rows - start
    lookahead_start(&ahead, &behind.slab, keys, rows, False)
    for row in range(rows):
        lookahead_next(&ahead, &behind.slab, keys, rows, row, False)
        at = start + row
        if through_find(&ahead, &behind, row) != NIL:
            continue
        if request.stored[at] == STORED_SEEN:
            request.stored[at] = STORED_UNKNOWN
        if request.stored[at] == STORED_UNKNOWN or (
            not request.stored[at] & STORED_FRESH
            and not behind_is_current(&behind, lookahead_hash(&ahead, row), request.since[at])
        ):
            request.stored[at] = STORED_UNKNOWN
            missing[count] = at
            count += 1
    return count


cdef inline void through_keep(behind_t behind, request_t request) noexcept nogil:
    """Create clean entries of the rows that were loaded, as far as they are newer than what is in memory, not
    written since, and find room."""
    cdef lookahead_t ahead
    cdef size_t row
    cdef slot_t slot
    cdef row_t it
    lookahead_start(&ahead, &behind.slab, request.keys, request.rows, True)
    for row in range(request.rows):
        lookahead_next(&ahead, &behind.slab, request.keys, request.rows, row, True)
        slot = through_find(&ahead, &behind, row)
        if slot == NIL and request.stored[row] != STORED_UNKNOWN:
            it = request_row(&request, &ahead, &behind, row, row)
            behind_read(&behind, slot, &it, False, True)


cdef inline bint takes_room(
    const behind_t *behind, const request_t *request, size_t row, slot_t slot, bint retakes
) noexcept nogil:
    """Whether a row, whose key is in `slot`, or not in memory where that is NIL, becomes unsaved."""
    if slot != NIL:
        return room_takes(behind, slot, retakes)
    return request.creates or request.stored[row] & STORED_MASK != STORED_ABSENT


cdef inline size_t room_near(behind_t behind, request_t request, bint retakes) noexcept nogil:
    """`through_room` of a cache so small that there is nothing to wait for."""
    cdef size_t row, count = 0
    for row in range(request.rows):
        if request.first is NULL or request.first[row]:
            count += takes_room(
                &behind, &request, row, slab_find(&behind.slab, column_row(request.keys, row)), retakes
            )
    return count


cdef inline size_t room_far(behind_t behind, request_t request, bint retakes) noexcept nogil:
    cdef lookahead_t ahead
    cdef size_t row, count = 0
    lookahead_start(&ahead, &behind.slab, request.keys, request.rows, False)
    for row in range(request.rows):
        lookahead_next(&ahead, &behind.slab, request.keys, request.rows, row, False)
        if request.first is NULL or request.first[row]:
            count += takes_room(&behind, &request, row, through_find(&ahead, &behind, row), retakes)
    return count


cdef inline size_t through_room(behind_t behind, request_t request, bint retakes) noexcept nogil:
    """How many of the rows, or of those that are the first of their key, would become unsaved, or, where
    `retakes`, stay so although they are just being saved."""
    if behind.slab.header.slot_count > NEAR_SLOTS:
        return room_far(behind, request, retakes)
    return native_by_key_size(behind.slab.table.key_size, room_near(behind, request, retakes))


cdef inline void through_see(behind_t behind, request_t request) noexcept nogil:
    """All rows are known now, and stay so for the rest of the batch. What is in memory is copied, as rows may
    evict it before its own row runs; what was loaded is not held against what they evict."""
    cdef lookahead_t ahead
    cdef size_t row
    cdef slot_t slot
    cdef size_t fetched = request.rows if behind.slab.header.slot_count > NEAR_SLOTS else 0
    lookahead_start(&ahead, &behind.slab, request.keys, request.rows, False)
    for row in range(request.rows):
        lookahead_next(&ahead, &behind.slab, request.keys, request.rows, row, False)
        through_mark(&ahead, &behind, fetched, row)
        slot = through_find(&ahead, &behind, row)
        if slot != NIL and not behind_state(&behind, slot) & STATE_DELETED:
            native_copy(
                column_row(request.values, row), slab_value(&behind.slab, slot), behind.slab.header.value_size
            )
            request.stored[row] = STORED_SEEN
        request.since[row] = <uint64_t>-1


cdef inline room_t through_room_for(behind_t *behind, request_t *request) noexcept nogil:
    """The room that a change takes, counted only where it may be short. One that fits is made now: no more is
    kept for it."""
    cdef room_t room = room_t(request.rows, 0, request.rows <= room_free(behind, request.ticket))
    cdef uint64_t unused = room_unused(behind), taken
    if not room.fits:
        room_expire(behind)
        room.needed = taken = through_room(behind[0], request[0], False)
        room.lacking = room.needed - unused if room.needed > unused else 0
        if behind.unsaved.kept and behind.unsaved.keeper != request.ticket:
            taken = through_room(behind[0], request[0], True)
        room.fits = taken <= room_free(behind, request.ticket)
    if room.fits:
        room_give_up(behind, request.ticket)
    return room


cdef inline int through_prepare(
    behind_t *behind, request_t *request, int64_t *missing, room_t *room
) noexcept nogil:
    """Whether all rows of a change are known and have room; then nothing stops it."""
    if through_missing(behind[0], request[0], 0, missing):
        return STATUS_MISSING
    room[0] = through_room_for(behind, request)
    if not room.fits:
        return STATUS_FULL
    through_see(behind[0], request[0])
    return STATUS_DONE


cdef inline row_t through_only_row(behind_t *behind, request_t *request) noexcept nogil:
    """The row of a request of one."""
    cdef row_t row
    row.hash = slab_hash(&behind.slab, request.keys.base)
    row.key = request.keys.base
    row.value = request.values.base
    row.stored = <stored_t>request.stored[0]
    row.since = request.since[0]
    row.default = request.default
    return row


cdef inline int through_prepare_only(
    behind_t *behind, request_t *request, room_t *room, only_t *only
) noexcept nogil:
    """`through_prepare` of a request of one row, and where it is and what it has."""
    cdef int64_t missing
    cdef int status
    cdef bint is_loaded
    only.stored, only.since = <stored_t>request.stored[0], request.since[0]
    status = through_prepare(behind, request, &missing, room)
    if status == STATUS_DONE:
        only.row = through_only_row(behind, request)
        only.slot = table_find(&behind.slab.table, only.row.hash, only.row.key)
        is_loaded = only.slot == NIL and only.row.stored & STORED_MASK == STORED_FOUND
        only.value = only.row.value if is_loaded or only.row.stored == STORED_SEEN else only.row.default
    return status


cdef inline int through_put_off(request_t *request, const only_t *only) noexcept nogil:
    """Nothing is done to the row, which is to be prepared again: its value is not what was expected."""
    request.stored[0], request.since[0] = only.stored, only.since
    return STATUS_OTHER


cdef inline size_t put_rows(
    behind_t behind, column_t keys, column_t values, size_t rows, uint64_t now, rows_t *evicted
) noexcept nogil:
    cdef lookahead_t ahead
    cdef size_t row, done = 0, fetched = rows if behind.slab.header.slot_count > NEAR_SLOTS else 0
    cdef row_t it
    cdef outcome_t outcome
    it.stored = STORED_UNKNOWN
    it.default = NULL
    lookahead_start(&ahead, &behind.slab, keys, rows, True)
    for row in range(rows):
        lookahead_next(&ahead, &behind.slab, keys, rows, row, True)
        through_mark(&ahead, &behind, fetched, row)
        it.hash = lookahead_hash(&ahead, row)
        it.key = lookahead_key(&ahead, &behind.slab, row)
        outcome = behind_put(
            &behind, through_find(&ahead, &behind, row), &it, column_row(values, row), now, evicted
        )
        done += outcome == OUTCOME_FOUND
    return done


cdef inline size_t through_put(
    behind_t behind, column_t keys, column_t values, size_t rows, uint64_t now, rows_t *evicted
) noexcept nogil:
    """`put` of each row; how many were written. There is room, unless another thread changes the keys."""
    return native_by_key_size(
        behind.slab.table.key_size, put_rows(behind, keys, values, rows, now, evicted)
    )


cdef inline size_t through_edit(
    behind_t behind, request_t request, edit_t edit, column_t deltas, column_t results, uint64_t now
) noexcept nogil:
    """Change a field of each row; the first row that would wrap, or the number of rows. All rows are known,
    and there is room."""
    cdef lookahead_t ahead
    cdef size_t row
    cdef row_t it
    cdef outcome_t outcome
    lookahead_start(&ahead, &behind.slab, request.keys, request.rows, True)
    for row in range(request.rows):
        lookahead_next(&ahead, &behind.slab, request.keys, request.rows, row, True)
        through_mark(&ahead, &behind, request.rows, row)
        it = request_row(&request, &ahead, &behind, row, row)
        edit.delta = <const delta_t *>column_row(deltas, row)
        outcome = behind_edit(&behind, through_find(&ahead, &behind, row), &it, &edit, now)
        if outcome == OUTCOME_WRAPS:
            return row
        request.found[row] = outcome == OUTCOME_FOUND
        if outcome == OUTCOME_FOUND:
            memcpy(column_row(results, row), it.value + edit.fields.offset, edit.fields.size)
        else:
            memset(column_row(results, row), 0, edit.fields.size)
    return request.rows


cdef inline void through_delete(behind_t behind, request_t request, uint64_t now) noexcept nogil:
    """Delete each key. All rows are known, and there is room."""
    cdef lookahead_t ahead
    cdef size_t row
    cdef row_t it
    lookahead_start(&ahead, &behind.slab, request.keys, request.rows, True)
    for row in range(request.rows):
        lookahead_next(&ahead, &behind.slab, request.keys, request.rows, row, True)
        it = request_row(&request, &ahead, &behind, row, row)
        request.found[row] = OUTCOME_FOUND == behind_delete(
            &behind, through_find(&ahead, &behind, row), &it, now
        )


cdef inline size_t through_invalidate(
    behind_t behind, column_t keys, size_t rows, uint8_t *gone
) noexcept nogil:
    """Drop each key from memory that is saved; how many were there."""
    cdef lookahead_t ahead
    cdef size_t row, count = 0
    cdef slot_t slot
    lookahead_start(&ahead, &behind.slab, keys, rows, True)
    for row in range(rows):
        lookahead_next(&ahead, &behind.slab, keys, rows, row, True)
        slot = through_find(&ahead, &behind, row)
        gone[row] = behind_invalidate(&behind, slot, lookahead_hash(&ahead, row))
        if slot != NIL:
            count += gone[row]
    return count


cdef inline size_t through_scan(behind_t behind, size_t start, size_t stop, char *keys) noexcept nogil:
    """Copy the keys that the slots from `start` to `stop` hold, deleted ones left out; how many."""
    cdef size_t number, count = 0, size = behind.slab.header.key_size
    for number in range(start, stop):
        if link_is_free(behind_at(&behind, <slot_t>number)):
            continue
        if not behind_state(&behind, <slot_t>number) & STATE_DELETED:
            native_copy(keys + count * size, slab_key(&behind.slab, <slot_t>number), size)
            count += 1
    return count
