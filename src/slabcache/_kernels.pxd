"""Batch kernels: a loop of the scalar operation over rows on raw pointers, without the GIL.

Rows are taken in groups. Before a group runs, three passes fetch what it will touch, so that the
cache misses of its rows overlap instead of following one another:

    1. copy and hash all keys, prefetch their buckets
    2. match tags, prefetch the slots they name
    3. prefetch the neighbours' links of those slots

These passes are hints alone: they change nothing, and a stale hint costs nothing. The last pass is
the ordinary operation on each row in order, so a batch is exactly a loop of the scalar call.

Keys are copied first because the caller's array may be changed by another thread meanwhile: a key
that differs between hashing and storing would break I1.

Each function needs the lock of the cache.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from slabcache._arena cimport KEY_SIZE_MAX, NIL, slot_t
from slabcache._field cimport delta_t, field_add, field_t
from slabcache._lru cimport link_t, lru_link
from slabcache._native cimport native_first_bit, native_match_tags, native_prefetch
from slabcache._slab cimport (
    rows_t,
    slab_erase,
    slab_get,
    slab_hash,
    slab_put,
    slab_t,
    slab_touch,
    slab_updated,
    slab_value,
)
from slabcache._table cimport bucket_t, table_find, table_home, table_tag


cdef enum:
    GROUP_ROWS = 32


cdef struct column_t:           # packed rows at any stride, owned by the caller
    char *base                  # row 0
    Py_ssize_t stride           # bytes from row to row; may be 0 or negative


cdef struct group_t:
    size_t count
    uint64_t hashes[GROUP_ROWS]
    slot_t candidates[GROUP_ROWS]   # a hint: the slot that the row will probably find, or NIL
    char keys[GROUP_ROWS * KEY_SIZE_MAX]


cdef inline char *column_row(const column_t *column, size_t row) noexcept nogil:
    return column.base + <Py_ssize_t>row * column.stride


cdef inline const char *group_key(const slab_t *slab, const group_t *group, size_t i) noexcept nogil:
    return group.keys + i * slab.table.key_size


cdef inline void group_load(
    const slab_t *slab, group_t *group, const column_t *keys, size_t row, size_t rows
) noexcept nogil:
    """Pass 1: rows from `row` on, at most GROUP_ROWS of them."""
    cdef size_t i, size = slab.table.key_size
    cdef char *key
    group.count = min(rows - row, <size_t>GROUP_ROWS)
    for i in range(group.count):
        key = group.keys + i * size
        if size == 16:
            memcpy(key, column_row(keys, row + i), 16)
        elif size == 8:
            memcpy(key, column_row(keys, row + i), 8)
        else:
            memcpy(key, column_row(keys, row + i), size)
        group.hashes[i] = slab_hash(slab, key)
        native_prefetch(table_home(&slab.table, group.hashes[i]))


cdef inline void group_match(const slab_t *slab, group_t *group) noexcept nogil:
    """Pass 2."""
    cdef size_t i
    cdef uint32_t matches
    cdef bucket_t *bucket
    cdef slot_t slot
    for i in range(group.count):
        bucket = table_home(&slab.table, group.hashes[i])
        matches = native_match_tags(bucket.tags, table_tag(group.hashes[i]))
        slot = NIL
        if matches:
            slot = bucket.slots[native_first_bit(matches)]
            native_prefetch(lru_link(&slab.lru, slot))
            native_prefetch(slab_value(slab, slot) + slab.header.value_size - 1)
        group.candidates[i] = slot


cdef inline void group_prefetch_links(const slab_t *slab, const group_t *group) noexcept nogil:
    """Pass 3: moving a slot to the front writes to its two neighbours."""
    cdef size_t i
    cdef link_t *link
    for i in range(group.count):
        if group.candidates[i] != NIL:
            link = lru_link(&slab.lru, group.candidates[i])
            native_prefetch(lru_link(&slab.lru, link.prev))
            native_prefetch(lru_link(&slab.lru, link.next))


# ---- reading -------------------------------------------------------------------------------------

cdef inline void batch_read(
    slab_t *slab, const column_t *keys, size_t rows, const column_t *values, uint8_t *found, bint counted
) noexcept nogil:
    """`get` (counted) or `peek` of each key; the value of an absent key is zeroed."""
    cdef group_t group
    cdef size_t row = 0, i, size = slab.header.value_size
    cdef slot_t slot
    cdef char *value
    while row < rows:
        group_load(slab, &group, keys, row, rows)
        group_match(slab, &group)
        if counted:
            group_prefetch_links(slab, &group)
        for i in range(group.count):
            if counted:
                slot = slab_get(slab, group.hashes[i], group_key(slab, &group, i))
            else:
                slot = table_find(&slab.table, group.hashes[i], group_key(slab, &group, i))
            value = column_row(values, row + i)
            found[row + i] = slot != NIL
            if slot != NIL:
                memcpy(value, slab_value(slab, slot), size)
            else:
                memset(value, 0, size)
        row += group.count


cdef inline void batch_contains(
    slab_t *slab, const column_t *keys, size_t rows, uint8_t *found, bint touch
) noexcept nogil:
    """Whether each key is there; with `touch` those that are become the most recent."""
    cdef group_t group
    cdef size_t row = 0, i
    cdef slot_t slot
    while row < rows:
        group_load(slab, &group, keys, row, rows)
        group_match(slab, &group)
        if touch:
            group_prefetch_links(slab, &group)
        for i in range(group.count):
            slot = table_find(&slab.table, group.hashes[i], group_key(slab, &group, i))
            found[row + i] = slot != NIL
            if touch and slot != NIL:
                slab_touch(slab, slot)
        row += group.count


# ---- changing ------------------------------------------------------------------------------------

cdef inline void batch_put(
    slab_t *slab, const column_t *keys, const column_t *values, size_t rows, rows_t *evicted
) noexcept nogil:
    """`put` of each row; what is evicted is appended to `evicted` unless NULL."""
    cdef group_t group
    cdef size_t row = 0, i
    while row < rows:
        group_load(slab, &group, keys, row, rows)
        group_match(slab, &group)
        group_prefetch_links(slab, &group)
        for i in range(group.count):
            slab_put(
                slab, group.hashes[i], group_key(slab, &group, i), column_row(values, row + i), evicted
            )
        row += group.count


cdef inline void batch_delete(
    slab_t *slab, const column_t *keys, size_t rows, uint8_t *found
) noexcept nogil:
    cdef group_t group
    cdef size_t row = 0, i
    cdef slot_t slot
    while row < rows:
        group_load(slab, &group, keys, row, rows)
        group_match(slab, &group)
        group_prefetch_links(slab, &group)
        for i in range(group.count):
            slot = table_find(&slab.table, group.hashes[i], group_key(slab, &group, i))
            found[row + i] = slot != NIL
            if slot != NIL:
                slab_erase(slab, group.hashes[i], slot)
        row += group.count


cdef inline size_t batch_increment(
    slab_t *slab,
    const column_t *keys,
    size_t rows,
    const field_t *field,
    const column_t *deltas,
    const column_t *results,
    uint8_t *found,
) noexcept nogil:
    """Add to one field of each entry; `results` are its new values, zero where the key is absent.

    Returns `rows`, or the first row that would wrap: those before it are done, it and those after are not.
    """
    cdef group_t group
    cdef size_t row = 0, i
    cdef slot_t slot
    cdef char *target
    while row < rows:
        group_load(slab, &group, keys, row, rows)
        group_match(slab, &group)
        group_prefetch_links(slab, &group)
        for i in range(group.count):
            slot = table_find(&slab.table, group.hashes[i], group_key(slab, &group, i))
            found[row + i] = slot != NIL
            if slot == NIL:
                memset(column_row(results, row + i), 0, field.size)
                continue
            target = slab_value(slab, slot) + field.offset
            if not field_add(field, target, <const delta_t *>column_row(deltas, row + i)):
                return row + i
            memcpy(column_row(results, row + i), target, field.size)
            slab_updated(slab, slot)
        row += group.count
    return rows
