"""Batch kernels: a loop of the scalar operation over rows on raw pointers, without the GIL.

`lookahead.pxd` fetches what the coming rows will touch. Each function needs the lock of the cache.

The view of the slab is passed by value: as a local variable that nobody else can change, it stays in
registers. Reading and writing are compiled three times, with keys of 8 and 16 bytes as constants.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from slabcache.arena.header cimport NIL, slot_t
from slabcache.arena.field cimport delta_t, field_add, field_t
from slabcache.arena.lookahead cimport (
    PAIR,
    column_row,
    column_t,
    lookahead_find,
    lookahead_hash,
    lookahead_key,
    lookahead_next,
    lookahead_next_pair,
    lookahead_start,
    lookahead_t,
)
from slabcache.machine.native cimport native_by_key_size, native_copy
from slabcache.arena.slab cimport (
    rows_t,
    slab_count_look_up,
    slab_erase,
    slab_put_at,
    slab_t,
    slab_touch,
    slab_updated,
    slab_value,
)
from slabcache.arena.table cimport table_find


# ---- reading -------------------------------------------------------------------------------------

cdef inline size_t read_rows(
    slab_t slab, column_t keys, size_t rows, column_t values, uint8_t *found, bint counted
) noexcept nogil:
    cdef lookahead_t ahead
    cdef size_t row, size = slab.header.value_size
    cdef slot_t slot
    lookahead_start(&ahead, &slab, keys, rows, counted)
    for row in range(rows):
        lookahead_next(&ahead, &slab, keys, rows, row, counted)
        slot = lookahead_find(&ahead, &slab, row)
        found[row] = slot != NIL
        if counted:
            slab_count_look_up(&slab, slot)
        if slot != NIL:
            native_copy(column_row(values, row), slab_value(&slab, slot), size)
        else:
            memset(column_row(values, row), 0, size)
    return rows


cdef inline void batch_read(
    slab_t slab, column_t keys, size_t rows, column_t values, uint8_t *found, bint counted
) noexcept nogil:
    """`get` (counted) or `peek` of each key; the value of an absent key is zeroed."""
    native_by_key_size(slab.table.key_size, read_rows(slab, keys, rows, values, found, counted))


cdef inline void batch_contains(
    slab_t slab, column_t keys, size_t rows, uint8_t *found, bint touch
) noexcept nogil:
    """Whether each key is there; with `touch` those that are become the most recent."""
    cdef lookahead_t ahead
    cdef size_t row
    cdef slot_t slot
    lookahead_start(&ahead, &slab, keys, rows, touch)
    for row in range(rows):
        lookahead_next(&ahead, &slab, keys, rows, row, touch)
        slot = lookahead_find(&ahead, &slab, row)
        found[row] = slot != NIL
        if touch and slot != NIL:
            slab_touch(&slab, slot)


# ---- changing ------------------------------------------------------------------------------------

cdef inline size_t put_rows(
    slab_t slab, column_t keys, column_t values, size_t rows, rows_t *evicted
) noexcept nogil:
    cdef lookahead_t ahead
    cdef size_t row
    lookahead_start(&ahead, &slab, keys, rows, True)
    for row in range(rows):
        if row % PAIR == 0:
            lookahead_next_pair(&ahead, &slab, keys, rows, row)
        slab_put_at(
            &slab,
            lookahead_find(&ahead, &slab, row),
            lookahead_hash(&ahead, row),
            lookahead_key(&ahead, &slab, row),
            column_row(values, row),
            evicted,
            False,          # lookahead_next_pair does it
        )
    return rows


cdef inline void batch_put(
    slab_t slab, column_t keys, column_t values, size_t rows, rows_t *evicted
) noexcept nogil:
    """`put` of each row; what is evicted is appended to `evicted` unless NULL."""
    native_by_key_size(slab.table.key_size, put_rows(slab, keys, values, rows, evicted))


cdef inline void batch_delete(
    slab_t slab, column_t keys, size_t rows, uint8_t *found
) noexcept nogil:
    cdef lookahead_t ahead
    cdef size_t row
    cdef slot_t slot
    lookahead_start(&ahead, &slab, keys, rows, True)
    for row in range(rows):
        lookahead_next(&ahead, &slab, keys, rows, row, True)
        slot = table_find(&slab.table, lookahead_hash(&ahead, row), lookahead_key(&ahead, &slab, row))
        found[row] = slot != NIL
        if slot != NIL:
            slab_erase(&slab, lookahead_hash(&ahead, row), slot)


cdef inline size_t batch_increment(
    slab_t slab,
    column_t keys,
    size_t rows,
    const field_t *field,
    column_t deltas,
    column_t results,
    uint8_t *found,
) noexcept nogil:
    """Add to one field of each entry; `results` are its new values, zero where the key is absent.

    Returns `rows`, or the first row that would wrap: those before it are done, it and those after are not.
    """
    cdef lookahead_t ahead
    cdef size_t row
    cdef slot_t slot
    cdef char *target
    lookahead_start(&ahead, &slab, keys, rows, True)
    for row in range(rows):
        lookahead_next(&ahead, &slab, keys, rows, row, True)
        slot = lookahead_find(&ahead, &slab, row)
        found[row] = slot != NIL
        if slot == NIL:
            memset(column_row(results, row), 0, field.size)
            continue
        target = slab_value(&slab, slot) + field.offset
        if not field_add(field, target, <const delta_t *>column_row(deltas, row)):
            return row
        memcpy(column_row(results, row), target, field.size)
        slab_updated(&slab, slot)
    return rows
