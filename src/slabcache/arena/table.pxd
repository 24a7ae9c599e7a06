"""Open-addressing hash table from key to slot number, in 64-byte buckets.

A bucket is one cache line of twelve cells:

    byte 0           12                     16                                            64
         | 12 tags   | overflow (u32)       | 12 slot numbers (u32)                        |

* A tag is one byte of the hash, never 0; tag 0 marks an empty cell. All twelve are compared at once.
* An entry lives in its home bucket, picked by the high bits of the hash (multiply and shift, so that
  any number of buckets works), or, when that is full, in the next one that has room.
* `overflow` counts the entries that had to pass the bucket on their way from home. A search goes on
  past a bucket only while it is not 0, so erasing leaves no tombstone behind and a table that
  churns for ever stays as fast as a fresh one.

Find, insert and erase cost O(1): mostly one bucket, and one cache line, at load 0.6. The table is sized
once and never grows, so there is no rehash. It does not own the keys: it is told where slot n keeps its key.

All words are derived, from the keys of the live slots.

Invariant I1: every live slot is in the table once, found from its key; the table holds nothing else. (In
front of a store pending slots and tombstones are in it, too.)

Source: the overflow counters of F14 (Bronson and Shi, Facebook, 2019).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from slabcache.arena.header cimport BUCKET_CELLS, BUCKET_SIZE, NIL, slot_t
from slabcache.machine.native cimport native_equal, native_first_bit, native_match_tags, native_multiply_high


cdef struct bucket_t:
    uint8_t tags[12]
    uint32_t overflow
    slot_t slots[12]


cdef struct table_t:            # a view: pointers into the arena, owned by nobody
    bucket_t *buckets
    uint64_t bucket_count
    const char *keys            # key of slot 0
    size_t key_stride           # bytes from key to key
    size_t key_size             # bytes


cdef inline bucket_t *table_home(const table_t *table, uint64_t hash) noexcept nogil:
    return table.buckets + native_multiply_high(hash, table.bucket_count)


cdef inline bucket_t *table_next(const table_t *table, bucket_t *bucket) noexcept nogil:
    bucket += 1
    return table.buckets if bucket == table.buckets + table.bucket_count else bucket


cdef inline uint8_t table_tag(uint64_t hash) noexcept nogil:
    cdef uint8_t tag = <uint8_t>hash
    return tag if tag else 1


cdef inline const char *table_key(const table_t *table, slot_t slot) noexcept nogil:
    return table.keys + slot * table.key_stride


cdef inline slot_t table_find(
    const table_t *table, uint64_t hash, const char *key
) noexcept nogil:
    """The slot that holds `key`, or NIL."""
    cdef uint8_t tag = table_tag(hash)
    cdef bucket_t *home = table_home(table, hash)
    cdef bucket_t *bucket = home
    cdef uint32_t matches
    cdef slot_t slot
    while True:
        matches = native_match_tags(bucket.tags, tag)
        while matches:
            slot = bucket.slots[native_first_bit(matches)]
            if native_equal(table_key(table, slot), key, table.key_size):
                return slot
            matches &= matches - 1
        if bucket.overflow == 0:
            return NIL
        bucket = table_next(table, bucket)
        if bucket == home:      # a tiny table can have overflow in all its buckets
            return NIL


cdef inline void table_insert(table_t *table, uint64_t hash, slot_t slot) noexcept nogil:
    """Add `slot`, whose key is not in the table. There is room: cells outnumber slots."""
    cdef bucket_t *bucket = table_home(table, hash)
    cdef uint32_t empty = native_match_tags(bucket.tags, 0)
    cdef uint32_t cell
    while empty == 0:
        bucket.overflow += 1
        bucket = table_next(table, bucket)
        empty = native_match_tags(bucket.tags, 0)
    cell = native_first_bit(empty)
    bucket.tags[cell] = table_tag(hash)
    bucket.slots[cell] = slot


cdef inline void table_erase(table_t *table, uint64_t hash, slot_t slot) noexcept nogil:
    """Remove `slot`, which is in the table under `hash`."""
    cdef uint8_t tag = table_tag(hash)
    cdef bucket_t *bucket = table_home(table, hash)
    cdef uint32_t matches, cell
    while True:
        matches = native_match_tags(bucket.tags, tag)
        while matches:
            cell = native_first_bit(matches)
            if bucket.slots[cell] == slot:
                bucket.tags[cell] = 0
                return
            matches &= matches - 1
        bucket.overflow -= 1
        bucket = table_next(table, bucket)


cdef inline void table_clear(table_t *table) noexcept nogil:
    memset(table.buckets, 0, <size_t>(table.bucket_count * BUCKET_SIZE))
