"""Slots of entries in one arena: the LRU cache itself, built from table and list.

A slot, `stride` bytes:

    byte 0      4      8      key_at: 12       key_at + key_size            stride
         | prev | next | hint | key (packed)   | value (packed)   | padding |

The links stand beside the key, so that a search that ends here has fetched what moving the entry
to the front needs. Slots are numbered from 1. Those never used lie above `fresh` and are taken in
order; recycled ones form a chain through `next`. Eviction hands the victim's slot straight to the
newcomer: no allocation, no free.

Each function needs the lock of the cache. None allocates, fails half-way or runs Python code. All but
those that name a range are O(1).

Base words: `next` from the sentinel on, which says what is live and in which order, and key and value of
what is live. Derived: `prev`, the free chain, the table. The hint is advice.

Invariants: I3 live + free slots = all slots, a free slot is on no list; I4 a found slot's key equals
the key asked for, byte for byte; I5 insertions - evictions - deletions = size <= capacity.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from slabcache.arena.header cimport NIL, header_t, slot_t
from slabcache.arena.hash cimport hash_key
from slabcache.arena.lru cimport (
    TRAIL,
    lru_clear,
    lru_coming,
    lru_least_recent,
    lru_link,
    lru_move_to_front,
    lru_note_victim,
    lru_push,
    lru_t,
    lru_unlink,
)
from slabcache.machine.native cimport native_copy, native_prefetch
from slabcache.arena.table cimport (
    bucket_t,
    table_clear,
    table_erase,
    table_find,
    table_home,
    table_insert,
    table_key,
    table_t,
)


cdef struct slab_t:             # views into one arena
    header_t *header
    table_t table
    lru_t lru
    char *values                # value of slot 0


cdef struct rows_t:             # packed rows that a caller lends to take what leaves the cache
    char *keys
    char *values
    size_t count                # rows filled so far


cdef enum:
    MOVES_AHEAD = 16            # slots between the one that is moved and the one whose bucket is fetched


cdef inline void slab_attach(slab_t *slab, header_t *header) noexcept nogil:
    cdef char *slots = <char *>header + header.slots_at
    slab.header = header
    slab.table.buckets = <bucket_t *>(<char *>header + header.buckets_at)
    slab.table.bucket_count = header.bucket_count
    slab.table.keys = slots + header.key_at
    slab.table.key_stride = header.slot_stride
    slab.table.key_size = header.key_size
    slab.lru.links = slots
    slab.lru.stride = header.slot_stride
    slab.lru.trail = &header.trail
    slab.values = slots + header.key_at + header.key_size


cdef inline uint64_t slab_hash(const slab_t *slab, const char *key) noexcept nogil:
    return hash_key(&slab.header.seed, key, slab.table.key_size)


cdef inline const char *slab_key(const slab_t *slab, slot_t slot) noexcept nogil:
    return table_key(&slab.table, slot)


cdef inline char *slab_value(const slab_t *slab, slot_t slot) noexcept nogil:
    return slab.values + slot * slab.lru.stride


cdef inline void slab_prefetch(const slab_t *slab, slot_t slot) noexcept nogil:
    """Fetch the links, which are at the start of a slot, and the end of its value, which often shares no
    cache line with them."""
    native_prefetch(lru_link(&slab.lru, slot))
    native_prefetch(slab_value(slab, slot) + slab.header.value_size - 1)


cdef inline void slab_export(const slab_t *slab, slot_t slot, rows_t *rows) noexcept nogil:
    """Append a copy of the entry to `rows`, which has room."""
    cdef size_t key_size = slab.header.key_size, value_size = slab.header.value_size
    native_copy(rows.keys + rows.count * key_size, slab_key(slab, slot), key_size)
    native_copy(rows.values + rows.count * value_size, slab_value(slab, slot), value_size)
    rows.count += 1


# ---- looking up ----------------------------------------------------------------------------------

cdef inline slot_t slab_find(const slab_t *slab, const char *key) noexcept nogil:
    """The slot of `key`, or NIL; nothing is counted or moved."""
    return table_find(&slab.table, slab_hash(slab, key), key)


cdef inline void slab_touch(slab_t *slab, slot_t slot) noexcept nogil:
    """Make a live slot the most recent."""
    if lru_move_to_front(&slab.lru, slot):
        slab.header.version += 1


cdef inline void slab_count_look_up(slab_t *slab, slot_t slot) noexcept nogil:
    """Count a hit, and make its slot the most recent, or a miss where `slot` is NIL."""
    if slot == NIL:
        slab.header.counters.misses += 1
    else:
        slab.header.counters.hits += 1
        slab_touch(slab, slot)


# ---- changing ------------------------------------------------------------------------------------

cdef inline void slab_count_update(slab_t *slab) noexcept nogil:
    slab.header.counters.updates += 1
    slab.header.version += 1


cdef inline void slab_updated(slab_t *slab, slot_t slot) noexcept nogil:
    """Count a change that was made to the value of a live slot, and make it the most recent."""
    lru_move_to_front(&slab.lru, slot)
    slab_count_update(slab)


cdef inline void slab_detach(slab_t *slab, uint64_t hash, slot_t slot) noexcept nogil:
    """Take a live slot out of table and list; it is in hand then, neither live nor free."""
    table_erase(&slab.table, hash, slot)
    lru_unlink(&slab.lru, slot)
    slab.header.size -= 1
    slab.header.version += 1


cdef inline void slab_free(slab_t *slab, slot_t slot) noexcept nogil:
    """Put a detached slot on the free chain."""
    lru_link(&slab.lru, slot).next = slab.header.free_head
    slab.header.free_head = slot


cdef inline void slab_erase(slab_t *slab, uint64_t hash, slot_t slot) noexcept nogil:
    """Delete the entry in a live slot."""
    slab_detach(slab, hash, slot)
    slab_free(slab, slot)
    slab.header.counters.deletions += 1


cdef inline bucket_t *slab_bucket_of_coming(const slab_t *slab, uint32_t eviction) noexcept nogil:
    """The home bucket of the slot that will probably be evicted 8 evictions after this one."""
    cdef slot_t slot = lru_coming(&slab.lru, eviction - TRAIL / 2)
    return table_home(&slab.table, slab_hash(slab, slab_key(slab, slot)))


cdef inline slot_t slab_take_out(slab_t *slab, slot_t victim, rows_t *evicted) noexcept nogil:
    """Evict a live slot; append it to `evicted` unless NULL. It is detached then."""
    if evicted is not NULL:
        slab_export(slab, victim, evicted)
    slab_detach(slab, slab_hash(slab, slab_key(slab, victim)), victim)
    slab.header.counters.evictions += 1
    return victim


cdef inline slot_t slab_evict(slab_t *slab, rows_t *evicted, bint fetch) noexcept nogil:
    """Evict the least recent entry of a cache that is not empty, as `slab_take_out`.

    With `fetch`, what coming evictions will touch is fetched.
    """
    cdef slot_t victim = lru_least_recent(&slab.lru)
    cdef uint32_t eviction = slab.lru.trail.evictions
    lru_note_victim(&slab.lru, victim)
    if fetch:
        slab_prefetch(slab, lru_coming(&slab.lru, eviction))
        native_prefetch(slab_bucket_of_coming(slab, eviction))
    return slab_take_out(slab, victim, evicted)


cdef inline slot_t slab_take_free(slab_t *slab) noexcept nogil:
    """A slot for a new entry; there is one."""
    cdef slot_t slot = slab.header.free_head
    if slot != NIL:
        slab.header.free_head = lru_link(&slab.lru, slot).next
    else:
        slab.header.fresh += 1
        slot = slab.header.fresh
    return slot


cdef inline void slab_store(
    slab_t *slab, slot_t slot, uint64_t hash, const char *key, const char *value
) noexcept nogil:
    """Put an absent key with its value into a slot in hand; the caller puts it on the list."""
    native_copy(<char *>slab_key(slab, slot), key, slab.table.key_size)
    native_copy(slab_value(slab, slot), value, slab.header.value_size)
    table_insert(&slab.table, hash, slot)


cdef inline void slab_fill(
    slab_t *slab, slot_t slot, uint64_t hash, const char *key, const char *value
) noexcept nogil:
    """Put an absent key with its value into a slot in hand, as the most recent; nothing is counted."""
    slab_store(slab, slot, hash, key, value)
    lru_push(&slab.lru, slot)
    slab.header.size += 1
    slab.header.version += 1


cdef inline slot_t slab_insert(
    slab_t *slab, uint64_t hash, const char *key, const char *value, rows_t *evicted, bint fetch
) noexcept nogil:
    """Create the entry of an absent key, after evicting the least recent one from a full cache; `fetch` is
    for that."""
    cdef slot_t slot
    if slab.header.size == slab.header.capacity:
        slot = slab_evict(slab, evicted, fetch)
    else:
        slot = slab_take_free(slab)
    slab_fill(slab, slot, hash, key, value)
    slab.header.counters.insertions += 1
    return slot


cdef inline void slab_put_at(
    slab_t *slab, slot_t slot, uint64_t hash, const char *key, const char *value, rows_t *evicted, bint fetch
) noexcept nogil:
    """Create or overwrite the entry of `key`, which is in `slot`, or absent where that is NIL."""
    if slot == NIL:
        slab_insert(slab, hash, key, value, evicted, fetch)
    else:
        native_copy(slab_value(slab, slot), value, slab.header.value_size)
        slab_updated(slab, slot)


cdef inline void slab_put(
    slab_t *slab, uint64_t hash, const char *key, const char *value, rows_t *evicted
) noexcept nogil:
    """Create or overwrite the entry of `key`."""
    slab_put_at(slab, table_find(&slab.table, hash, key), hash, key, value, evicted, True)


# ---- all entries ---------------------------------------------------------------------------------

cdef inline void slab_clear(slab_t *slab) noexcept nogil:
    """Delete all entries. O(size), and never more than one pass over the table.

    Few entries are erased one by one: clearing would touch pages of the table that were never used.
    """
    cdef slot_t slot = lru_least_recent(&slab.lru)
    if slot == NIL:
        return
    if slab.header.size < slab.table.bucket_count / 4:
        while slot != NIL:
            table_erase(&slab.table, slab_hash(slab, slab_key(slab, slot)), slot)
            slot = lru_link(&slab.lru, slot).prev
    else:
        table_clear(&slab.table)
    lru_clear(&slab.lru)
    slab.header.counters.deletions += slab.header.size
    slab.header.size = 0
    slab.header.fresh = 0
    slab.header.free_head = NIL
    slab.header.version += 1


cdef inline void slab_export_all(const slab_t *slab, rows_t *rows) noexcept nogil:
    """Append all entries, from least to most recent. O(size)."""
    cdef slot_t slot = lru_least_recent(&slab.lru)
    while slot != NIL:
        slab_export(slab, slot, rows)
        slot = lru_link(&slab.lru, slot).prev


cdef inline void slab_move_slots(slab_t *target, slab_t *source) noexcept nogil:
    """Move all slots of `source` to the same numbers in `target`, which has as many. Links stay true; the
    table is built again, from the slots in the order of memory."""
    cdef slot_t fresh = source.header.fresh
    cdef slot_t slot = source.header.free_head
    cdef uint64_t hash
    cdef size_t number
    memcpy(target.lru.links, source.lru.links, (fresh + <size_t>1) * source.lru.stride)
    target.header.trail = source.header.trail
    target.header.size = source.header.size
    target.header.free_head = source.header.free_head
    target.header.fresh = fresh
    while slot != NIL:              # mark free slots: no live one is its own neighbour
        lru_link(&target.lru, slot).prev = slot
        slot = lru_link(&target.lru, slot).next
    for number in range(1, <size_t>fresh + 1):
        slot = <slot_t>number
        if fresh - slot >= MOVES_AHEAD:
            hash = slab_hash(target, slab_key(target, slot + MOVES_AHEAD))
            native_prefetch(table_home(&target.table, hash))
        if lru_link(&target.lru, slot).prev != slot:
            table_insert(&target.table, slab_hash(target, slab_key(target, slot)), slot)


cdef inline void slab_move_entries(slab_t *target, slab_t *source) noexcept nogil:
    """Move all entries of `source` to the first slots of `target`, from least to most recent."""
    cdef slot_t slot = lru_least_recent(&source.lru)
    cdef const char *key
    while slot != NIL:
        key = slab_key(source, slot)
        slab_fill(target, slab_take_free(target), slab_hash(target, key), key, slab_value(source, slot))
        slot = lru_link(&source.lru, slot).prev


cdef inline void slab_move(slab_t *target, slab_t *source, rows_t *evicted) noexcept nogil:
    """Move the most recent entries of `source` into the empty `target`, of the same seed; those that find
    no room count as evicted and are appended to `evicted` unless NULL. Counters come along. O(size).
    """
    while source.header.size > target.header.capacity:
        slab_evict(source, evicted, True)
    # A cache that is nearly empty must not copy, and make resident, all slots that it ever used.
    if source.header.fresh <= target.header.slot_count and source.header.size >= source.header.fresh / 4:
        slab_move_slots(target, source)
    else:
        slab_move_entries(target, source)
    target.header.counters = source.header.counters
    target.header.version = source.header.version + 1
