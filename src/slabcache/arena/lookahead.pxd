"""The rows of a batch that come next: what they will touch is fetched before they run.

A look-up waits for memory three times, each time for an address that it has just read: the bucket, the slot,
the slot's neighbours in the list. A batch knows its keys, so each row passes through stages, one
DISTANCE behind the other, and the waits of all rows on their way overlap:

    row + 3 * DISTANCE    copy and hash the key, prefetch its bucket
    row + 2 * DISTANCE    match tags, prefetch the slot they name, and the next bucket of a full one
    row + DISTANCE        prefetch the links of that slot's neighbours
    row                   the ordinary operation

The stages change nothing, and what they found may be stale when the row runs, which costs time alone as
long as no row frees a slot (see lookahead_find). So a batch is exactly a loop of the scalar call. Stages
of different rows take turns row by row, because a processor has room for a few dozen reads at a time: a
pass over many rows would fill that room, wait, and then leave it empty.

A row of a writing batch touches three pages that no row before it has touched: the newcomer's bucket, the
slot of a coming victim and the bucket of another. A prefetch waits for the translation of its address,
and nothing after it completes meanwhile. So such rows take their turn in pairs, all prefetches of a
pair one right after the other: their translations overlap.

Keys are copied because the caller's array may be changed by another thread meanwhile: a key that
differs between hashing and storing would break I1.
"""

from libc.stdint cimport uint32_t, uint64_t

from slabcache.arena.header cimport KEY_SIZE_MAX, NIL, slot_t
from slabcache.arena.lru cimport link_t, lru_coming, lru_link
from slabcache.machine.native cimport (
    native_copy,
    native_equal,
    native_first_bit,
    native_match_tags,
    native_prefetch,
    native_settle,
)
from slabcache.arena.slab cimport slab_bucket_of_coming, slab_hash, slab_key, slab_prefetch, slab_t
from slabcache.arena.table cimport bucket_t, table_find, table_home, table_next, table_tag


cdef enum:
    DISTANCE = 8                # rows from one stage to the next
    STAGES = 3                  # before a row runs
    PAIR = 2                    # rows of a writing batch that pass a stage together; DISTANCE is a multiple
    RING_ROWS = 32              # a power of two above STAGES * DISTANCE


cdef struct column_t:           # packed rows at any stride, owned by the caller
    char *base                  # row 0
    Py_ssize_t stride           # bytes from row to row; may be 0 or negative


cdef struct lookahead_t:        # rings: row n is at n % RING_ROWS
    uint64_t hashes[RING_ROWS]
    slot_t candidates[RING_ROWS]    # the slot that the row will probably find, or NIL
    char keys[RING_ROWS * KEY_SIZE_MAX]
    uint32_t evictions              # those before this one, by its number, have had coming victims fetched


cdef inline char *column_row(column_t column, size_t row) noexcept nogil:
    return column.base + <Py_ssize_t>row * column.stride


cdef inline const char *lookahead_key(
    const lookahead_t *ahead, const slab_t *slab, size_t row
) noexcept nogil:
    return ahead.keys + row % RING_ROWS * slab.table.key_size


cdef inline uint64_t lookahead_hash(const lookahead_t *ahead, size_t row) noexcept nogil:
    return ahead.hashes[row % RING_ROWS]


cdef inline void lookahead_load(
    lookahead_t *ahead, const slab_t *slab, column_t keys, size_t row
) noexcept nogil:
    cdef char *key = <char *>lookahead_key(ahead, slab, row)
    native_copy(key, column_row(keys, row), slab.table.key_size)
    native_settle(key)
    ahead.hashes[row % RING_ROWS] = slab_hash(slab, key)


cdef inline void lookahead_bucket(lookahead_t *ahead, const slab_t *slab, size_t row) noexcept nogil:
    native_prefetch(table_home(&slab.table, lookahead_hash(ahead, row)))


cdef inline void lookahead_match(lookahead_t *ahead, const slab_t *slab, size_t row) noexcept nogil:
    cdef uint64_t hash = lookahead_hash(ahead, row)
    cdef bucket_t *bucket = table_home(&slab.table, hash)
    cdef uint32_t matches = native_match_tags(bucket.tags, table_tag(hash))
    cdef slot_t slot = NIL
    if bucket.overflow:
        native_prefetch(table_next(&slab.table, bucket))
    if matches:
        slot = bucket.slots[native_first_bit(matches)]
        slab_prefetch(slab, slot)
    ahead.candidates[row % RING_ROWS] = slot


cdef inline void lookahead_links(lookahead_t *ahead, const slab_t *slab, size_t row) noexcept nogil:
    cdef slot_t slot = ahead.candidates[row % RING_ROWS]
    cdef link_t *link
    if slot != NIL:
        link = lru_link(&slab.lru, slot)
        native_prefetch(lru_link(&slab.lru, link.prev))
        native_prefetch(lru_link(&slab.lru, link.next))


cdef inline void lookahead_step(
    lookahead_t *ahead, const slab_t *slab, column_t keys, size_t rows, size_t step, bint moves
) noexcept nogil:
    """One row through each stage: row `step` is loaded. A row number below 0 wraps and is none."""
    if step < rows:
        lookahead_load(ahead, slab, keys, step)
        lookahead_bucket(ahead, slab, step)
    if step - DISTANCE < rows:
        lookahead_match(ahead, slab, step - DISTANCE)
    if moves and step - 2 * DISTANCE < rows:
        lookahead_links(ahead, slab, step - 2 * DISTANCE)


cdef inline void lookahead_start(
    lookahead_t *ahead, const slab_t *slab, column_t keys, size_t rows, bint moves
) noexcept nogil:
    """Make row 0 ready to run."""
    cdef size_t step
    ahead.evictions = slab.lru.trail.evictions - PAIR    # the last pair of the batch before this one
    for step in range(STAGES * DISTANCE):
        lookahead_step(ahead, slab, keys, rows, step, moves)


cdef inline void lookahead_next(
    lookahead_t *ahead, const slab_t *slab, column_t keys, size_t rows, size_t row, bint moves
) noexcept nogil:
    """Before `row` runs: move the rows after it on. With `moves`, rows change the order of recency."""
    lookahead_step(ahead, slab, keys, rows, row + STAGES * DISTANCE, moves)


cdef inline void lookahead_next_pair(
    lookahead_t *ahead, const slab_t *slab, column_t keys, size_t rows, size_t row
) noexcept nogil:
    """Before `row` and the one after it run, in a batch that may evict: move two rows on, and fetch what
    will be touched by the evictions that follow on those of the last two rows."""
    cdef size_t load = row + STAGES * DISTANCE, match = load - DISTANCE, links = match - DISTANCE, n
    cdef uint32_t first = ahead.evictions, i
    cdef uint32_t count = min(slab.lru.trail.evictions - first, <uint32_t>PAIR)     # a row evicts one at most
    cdef bucket_t *buckets[PAIR]
    ahead.evictions += count
    # What takes time to compute comes first, then the prefetches one right after the other.
    for n in range(load, min(load + PAIR, rows)):
        lookahead_load(ahead, slab, keys, n)
    for i in range(count):
        buckets[i] = slab_bucket_of_coming(slab, first + i)
    for n in range(load, min(load + PAIR, rows)):
        lookahead_bucket(ahead, slab, n)
    for i in range(count):
        native_prefetch(buckets[i])
        slab_prefetch(slab, lru_coming(&slab.lru, first + i))
    for n in range(match, min(match + PAIR, rows)):
        lookahead_match(ahead, slab, n)
    for n in range(links, min(links + PAIR, rows)):
        lookahead_links(ahead, slab, n)


cdef inline slot_t lookahead_find(const lookahead_t *ahead, const slab_t *slab, size_t row) noexcept nogil:
    """What `table_find` returns. No row of the batch may have freed a slot: its old key is still there."""
    cdef slot_t slot = ahead.candidates[row % RING_ROWS]
    cdef const char *key = lookahead_key(ahead, slab, row)
    if slot != NIL and native_equal(slab_key(slab, slot), key, slab.table.key_size):
        return slot
    return table_find(&slab.table, lookahead_hash(ahead, row), key)
