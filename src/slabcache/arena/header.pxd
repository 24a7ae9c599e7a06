"""One contiguous arena: everything a cache keeps, reached by offset. **No pointer lies inside.**

    0           header_t   what the arena is, its secrets, counters and list heads
    buckets_at  bucket_t x bucket_count      (see table.pxd)
    slots_at    slot x (slot_count + 1)      (see slab.pxd); slot 0 is the sentinel of the LRU list
    extra_at    what a cache before a store keeps (see behind/arena/unsaved.pxd); nothing in others
    pool_at     its marks (see behind/arena/marks.pxd)

So the same bytes can be anonymous memory today, and a file or shared memory next. The system hands
them out zeroed and lazily: a zeroed arena past its header is an empty cache, no page of it is touched
before an entry needs it, and it never grows.

Base words of the header: what the arena is, from `magic` to `slot_count`, `key_at`, `buckets_at`, secrets and
counters. Derived, from the slots: `size`, `free_head`, `fresh`. The trail is advice.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from slabcache.machine.native cimport native_map, native_page_size, native_unmap


cdef enum:
    ARENA_LAYOUT = 5            # version of everything that lies in an arena, of either room
    ARENA_HEADER_SIZE = 320     # bytes; whole cache lines, so that buckets do not straddle
    SLOT_KEY_AT = 12            # bytes of links and hint, which come before the key
    BUCKET_SIZE = 64            # bytes; one cache line
    BUCKET_CELLS = 12           # entries a bucket holds

    KEY_SIZE_MAX = 255          # bytes

    # Cells a slot has in the table, as a fraction: load factor 0.6.
    CELLS_NUMERATOR = 5
    CELLS_DENOMINATOR = 3

cdef extern from *:             # too large for a C enum
    """
    #define ARENA_MAGIC 0x6863616362616C73u /* "slabcach" in little-endian memory */
    #define CAPACITY_MAX 0xFFFFFFFEu        /* 2**32 - 2: slot numbers are 32 bits, 0 is NIL */
    """
    const uint64_t ARENA_MAGIC
    const uint64_t CAPACITY_MAX

ctypedef uint32_t slot_t

cdef enum:
    NIL = 0                     # no slot; also the sentinel of the LRU list


cdef struct seed_t:             # the secret words of the hash
    uint64_t words[4]


cdef struct counters_t:         # since construction; they only rise (I5)
    uint64_t hits
    uint64_t misses
    uint64_t insertions
    uint64_t updates
    uint64_t deletions
    uint64_t evictions


cdef struct trail_t:            # hints: they may be stale, but name slots that there are (see lru.pxd)
    slot_t pushed[16]           # the slots pushed last, a ring
    slot_t coming[16]           # the slots that will probably be evicted next, a ring
    uint32_t pushes             # cursors of the two
    uint32_t evictions


cdef struct header_t:
    uint64_t magic
    uint32_t layout
    uint32_t key_size           # bytes
    uint32_t value_size         # bytes
    uint32_t slot_stride        # bytes from slot to slot
    uint64_t bucket_count
    uint64_t slots_at           # bytes from the start of the arena to slot 0
    uint64_t extra_at           # bytes from the start of the arena to what lies behind the slots
    uint64_t pool_at            # bytes from the start of the arena to the pool; 0 where there is none
    uint64_t arena_size         # bytes
    slot_t capacity             # live entries at most
    slot_t slot_count           # slots that can hold an entry, numbered 1 to slot_count
    slot_t size                 # live entries
    slot_t free_head            # first recycled slot, chained through `next`; NIL when there is none
    slot_t fresh                # slots handed out at least once are 1 to `fresh`
    uint32_t key_at             # bytes from the start of a slot to its key
    uint64_t version            # rises with each change of content or order
    counters_t counters
    seed_t seed
    trail_t trail
    uint64_t buckets_at         # bytes from the start of the arena to the table


cdef struct shape_t:            # what an arena is to have room for; the caller has checked all sizes
    uint64_t capacity           # live entries at most
    uint64_t spare              # slots beyond them
    uint64_t key_size           # bytes
    uint64_t value_size         # bytes
    uint64_t extra_size         # bytes behind all slots
    uint64_t pool_size          # bytes behind those, mostly never touched; not 0 before a store


cdef inline uint64_t arena_stride(const shape_t *shape) noexcept nogil:
    """Bytes of a slot: links and hint, key, value, rounded up to 4."""
    return (SLOT_KEY_AT + shape.key_size + shape.value_size + 3) & ~<uint64_t>3


cdef inline uint64_t arena_bucket_count(uint64_t slot_count) noexcept nogil:
    return slot_count * CELLS_NUMERATOR / (CELLS_DENOMINATOR * BUCKET_CELLS) + 1


cdef inline uint64_t arena_extra_at(const shape_t *shape) noexcept nogil:
    """Bytes up to the end of the slots, in whole cache lines."""
    cdef uint64_t slot_count = shape.capacity + shape.spare
    cdef uint64_t buckets = arena_bucket_count(slot_count) * BUCKET_SIZE
    cdef uint64_t slots = (slot_count + 1) * arena_stride(shape)
    return (ARENA_HEADER_SIZE + buckets + slots + 63) & ~<uint64_t>63


cdef inline uint64_t arena_pool_at(const shape_t *shape) noexcept nogil:
    """Bytes up to the pool, in whole cache lines."""
    return (arena_extra_at(shape) + shape.extra_size + 63) & ~<uint64_t>63


cdef inline uint64_t arena_size(const shape_t *shape) noexcept nogil:
    """Bytes of a whole arena, in whole pages.

    With capacity + spare <= CAPACITY_MAX, key_size <= 255, value_size <= 65,535, extra and pool of less than
    2**48 bytes no term passes 2**50.
    """
    cdef uint64_t page = native_page_size()
    return (arena_pool_at(shape) + shape.pool_size + page - 1) / page * page


cdef inline header_t *arena_create(const shape_t *shape, const seed_t *seed) noexcept nogil:
    """A new arena of an empty cache, or NULL when that much memory cannot be had."""
    cdef uint64_t size = arena_size(shape)
    cdef header_t *header
    if size > <uint64_t>(<size_t>-1) / 2:
        return NULL             # a 32-bit machine
    header = <header_t *>native_map(<size_t>size)
    if header is NULL:
        return NULL
    header.magic = ARENA_MAGIC
    header.layout = ARENA_LAYOUT
    header.key_size = <uint32_t>shape.key_size
    header.value_size = <uint32_t>shape.value_size
    header.slot_stride = <uint32_t>arena_stride(shape)
    header.slot_count = <slot_t>(shape.capacity + shape.spare)
    header.bucket_count = arena_bucket_count(header.slot_count)
    header.key_at = SLOT_KEY_AT
    header.buckets_at = ARENA_HEADER_SIZE
    header.slots_at = header.buckets_at + header.bucket_count * BUCKET_SIZE
    header.extra_at = arena_extra_at(shape)
    header.pool_at = arena_pool_at(shape) if shape.pool_size else 0
    header.arena_size = size
    header.capacity = <slot_t>shape.capacity
    header.seed = seed[0]
    return header


cdef inline void arena_destroy(header_t *header) noexcept nogil:
    if header is not NULL:
        native_unmap(header, <size_t>header.arena_size)
