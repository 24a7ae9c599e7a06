"""Which entries the store behind a cache does not have yet: the state of each slot, and the order of writing.

A slot that is unsaved has a mark, with its state (see marks.pxd). Behind all slots lie, at `extra_at`

    unsaved_t                   counts
    uint64_t x stripes          numbers of writes that were saved

and the marks at `pool_at`. The dirty ring runs through the marks; the pending ring through the slots, whose
links are free, as they are off the LRU list.

                    write              drain              acknowledge
    STATE_CLEAN   -------->  DIRTY   -------->  FLUSHING  ----------->  STATE_CLEAN
                               ^                   | write
                               |  acknowledge      v
                               +---------------  REDIRTIED

So an acknowledgement cleans only what was not written since. A flag besides says where a slot is: in the
LRU list, evicted from it (pending), or deleted (a tombstone, until the store has deleted its row too). All
of them are in the table. Another flag, failing, is that of a dirty slot whose row alone the store did not
take: it is on neither ring, so that it is not drained, until the flusher, which keeps a list of these
slots, asks for it again.

Another flag, STATE_PASSED, is that of all entries from the least recent one up to `cursor`: the search for a
clean entry has gone past them, as they were unsaved. One of them that the store confirms is overtaken: it
keeps its mark, which goes to the overtaken ring, until it leaves its place in the LRU list. So no entry is
passed twice while it keeps its place.

A value that is loaded must not replace a newer one. Each write has a number. When the store has confirmed a
row, the number of its last write is left at a stripe picked by its hash: from then on the row may leave
memory, and a load that began before that number may have read what was there before the write, and is not
kept (behind_is_current). Keys share stripes, so now and then a load is not kept for a write of another key:
how often depends on the rows that are written, and confirmed by the store, both within the time that a load
takes; there are stripes enough for ten thousands.

Base words: `max_pending`, `writes`, the numbers of saved writes. Derived, from the marks: counts and ends of
rings. For whom room is kept, and whether the flusher sleeps or is to be woken, is of the moment.

Invariant I6: slots that are neither clean nor failing are on the dirty ring once, oldest first; pending
ones that are not drained on the pending ring too; pending <= max_pending. Each mark is free or that of one
unsaved or overtaken slot. Each function needs the lock of the cache.
"""

from libc.stdint cimport uint8_t, uint64_t

from slabcache.arena.header cimport NIL, header_t, slot_t
from slabcache.machine.lock cimport flag_t
from slabcache.arena.lru cimport link_t, lru_insert, lru_link, lru_note_push
from slabcache.behind.arena.marks cimport (
    STAMP_STATE_BITS,
    STATE_DELETED,
    STATE_DIRTY,
    STATE_EVICTED,
    STATE_FAILING,
    STATE_MASK,
    STATE_PASSED,
    STATE_REDIRTIED,
    link_is_marked,
    link_mark,
    mark_number_t,
    mark_set_state,
    mark_state,
    mark_t,
    mark_written,
    marks_at,
    marks_give_back,
    marks_of,
    marks_set_hint,
    marks_state,
    marks_t,
    marks_take,
    pool_t,
)
from slabcache.machine.native cimport native_now
from slabcache.behind.arena.ring cimport ring_link_t, ring_append, ring_t, ring_unlink
from slabcache.arena.slab cimport slab_attach, slab_t


cdef enum:
    STRIPES_MIN = 65536         # for the numbers of saved writes; a power of two
    SLOTS_PER_STRIPE = 16       # at most

    # What the flusher waits for.
    SLEEP_NOT = 0
    SLEEP_UNTIL_DUE = 1         # a pending entry wakes it
    SLEEP_IDLE = 2              # so does any write


cdef struct unsaved_t:
    uint64_t writes             # number of the last write
    uint64_t count              # slots in any state but STATE_CLEAN, free ones apart
    uint64_t pending            # of them, those evicted
    uint64_t deleted            # of them, tombstones
    uint64_t failing            # of them, those whose rows fail by themselves
    uint64_t max_pending
    uint64_t sleep              # what the flusher waits for
    flag_t bell                 # the flusher is to be woken
    slot_t cursor               # up to this one, entries of the LRU list are unsaved or overtaken; or NIL
    pool_t pool
    ring_link_t pending_ends    # of the pending ring
    ring_link_t overtaken_ends  # of the overtaken ring
    uint64_t kept               # slots that the change with the ticket `keeper` alone may make unsaved
    uint64_t keeper             # 0: none
    uint64_t kept_until         # in monotonic nanoseconds
    uint64_t tickets            # number of the last one, which went to a change that has to wait for room
    bint is_failing             # the store has taken nothing since it failed last
    uint64_t steps              # of all searches for a clean entry, counted in debug builds


cdef struct behind_t:           # views into one arena
    slab_t slab
    unsaved_t *unsaved
    marks_t marks
    ring_t dirty                # of marks
    ring_t pending              # of slots
    ring_t overtaken            # of marks
    uint64_t *saved             # of each stripe, the highest number of a write that was saved
    uint64_t stripe_mask        # stripes - 1


cdef inline uint64_t unsaved_stripes(uint64_t slot_count) noexcept nogil:
    cdef uint64_t stripes = STRIPES_MIN
    while stripes * SLOTS_PER_STRIPE < slot_count:
        stripes *= 2
    return stripes


cdef inline uint64_t unsaved_size(uint64_t slot_count) noexcept nogil:
    """Bytes at `extra_at`."""
    return sizeof(unsaved_t) + unsaved_stripes(slot_count) * sizeof(uint64_t)


cdef inline uint64_t unsaved_pool_size(uint64_t slot_count) noexcept nogil:
    """Bytes at `pool_at`."""
    return (slot_count + 1) * sizeof(mark_t)


cdef inline void behind_attach(behind_t *behind, header_t *header) noexcept nogil:
    cdef char *extra = <char *>header + header.extra_at
    slab_attach(&behind.slab, header)
    behind.unsaved = <unsaved_t *>extra
    behind.saved = <uint64_t *>(extra + sizeof(unsaved_t))
    behind.stripe_mask = unsaved_stripes(header.slot_count) - 1
    behind.marks.marks = <mark_t *>(<char *>header + header.pool_at)
    behind.marks.pool = &behind.unsaved.pool
    behind.dirty.links = <char *>behind.marks.marks
    behind.dirty.stride = sizeof(mark_t)
    behind.dirty.ends = <ring_link_t *>behind.dirty.links
    behind.overtaken.links = behind.dirty.links
    behind.overtaken.stride = sizeof(mark_t)
    behind.overtaken.ends = &behind.unsaved.overtaken_ends
    behind.pending.links = behind.slab.lru.links
    behind.pending.stride = behind.slab.lru.stride
    behind.pending.ends = &behind.unsaved.pending_ends


cdef inline link_t *behind_at(const behind_t *behind, slot_t slot) noexcept nogil:
    return lru_link(&behind.slab.lru, slot)


cdef inline uint8_t behind_state(const behind_t *behind, slot_t slot) noexcept nogil:
    return marks_state(&behind.marks, behind_at(behind, slot))


cdef inline bint behind_is_unsaved(const behind_t *behind, slot_t slot) noexcept nogil:
    """Whether a slot that is not free is unsaved."""
    return behind_state(behind, slot) & STATE_MASK != 0


cdef inline mark_t *behind_mark_at(const behind_t *behind, slot_t slot) noexcept nogil:
    """The mark of a slot that has one; for all others the sentinel, whose state is that of clean slots."""
    return marks_at(&behind.marks, behind_at(behind, slot))


cdef inline mark_t *behind_mark_of(const behind_t *behind, slot_t slot) noexcept nogil:
    """The mark of a slot that has one."""
    return marks_of(&behind.marks, behind_at(behind, slot))


cdef inline bint behind_is_listed(const behind_t *behind, slot_t slot) noexcept nogil:
    """Whether a slot that is not free is in the LRU list."""
    return not behind_state(behind, slot) & (STATE_EVICTED | STATE_DELETED)


cdef inline bint behind_is_deleted(const behind_t *behind, slot_t slot) noexcept nogil:
    """Whether a slot that is not free is a tombstone."""
    return behind_state(behind, slot) & STATE_DELETED != 0


cdef inline bint behind_is_full(const behind_t *behind) noexcept nogil:
    """Whether one more unsaved entry finds no room."""
    return behind.unsaved.count == behind.slab.header.slot_count


cdef inline void behind_wake(behind_t *behind, uint64_t sleep) noexcept nogil:
    if behind.unsaved.sleep >= sleep:
        behind.unsaved.sleep = SLEEP_NOT
        behind.unsaved.bell = True


cdef inline void behind_push(behind_t *behind, slot_t slot) noexcept nogil:
    """What `lru_push` does, where hints may be in marks. The hint that `slot` has is left as it is: it is
    stale for the next 16 pushes alone."""
    lru_insert(&behind.slab.lru, slot)
    marks_set_hint(&behind.marks, behind_at(behind, lru_note_push(&behind.slab.lru, slot)), slot)


cdef inline mark_t *behind_dirty(behind_t *behind, slot_t slot, uint64_t now) noexcept nogil:
    """The first write to a slot since it was clean, or in a batch for the store; its mark."""
    cdef link_t *link = behind_at(behind, slot)
    cdef bint was_clean = not link_is_marked(link)      # an overtaken one has been touched before
    cdef mark_number_t number = marks_take(&behind.marks, link, slot) if was_clean else link_mark(link)
    cdef mark_t *mark = behind.marks.marks + number
    if was_clean:
        behind.unsaved.count += 1
        mark.stamp = STATE_DIRTY
    else:
        ring_unlink(&behind.dirty, number)
        mark_set_state(mark, (mark_state(mark) & ~<uint8_t>STATE_MASK) | STATE_REDIRTIED)
    mark.since = now if now else native_now()
    ring_append(&behind.dirty, number)
    behind_wake(behind, SLEEP_IDLE)
    return mark


cdef inline void behind_mark(behind_t *behind, slot_t slot, mark_t *mark, uint64_t now) noexcept nogil:
    """Take note of a write to a slot, which is not pending; `mark` is what `behind_mark_at` gives for it. The
    clock is read, where need be, if `now` is 0."""
    if not mark_state(mark) & STATE_DIRTY:
        mark = behind_dirty(behind, slot, now)
    behind.unsaved.writes += 1
    mark.stamp = behind.unsaved.writes << STAMP_STATE_BITS | mark_state(mark)


cdef inline uint8_t behind_clean(behind_t *behind, slot_t slot, uint64_t hash) noexcept nogil:
    """The store need not be told any more what is in an unsaved slot: it is clean, and may leave memory. The
    flags that it had. An entry that was passed is overtaken."""
    cdef link_t *link = behind_at(behind, slot)
    cdef mark_t *mark = marks_of(&behind.marks, link)
    cdef uint64_t *stripe = &behind.saved[hash & behind.stripe_mask]
    cdef uint8_t flags = mark_state(mark) & ~<uint8_t>STATE_MASK
    stripe[0] = max(stripe[0], mark_written(mark))
    ring_unlink(&behind.dirty, link_mark(link))
    if flags & STATE_PASSED:
        mark_set_state(mark, STATE_PASSED)
        ring_append(&behind.overtaken, link_mark(link))
    else:
        marks_give_back(&behind.marks, link)
    behind.unsaved.count -= 1
    return flags


cdef inline bint behind_waits(const behind_t *behind, slot_t slot) noexcept nogil:
    """Whether an unsaved slot waits for the next batch; those of a batch do not, unless written again."""
    return mark_state(behind_mark_of(behind, slot)) & (STATE_DIRTY | STATE_FAILING) == STATE_DIRTY


cdef inline void behind_outdate(behind_t *behind, uint64_t hash) noexcept nogil:
    """What loads find that are under way is not what a key has now."""
    behind.unsaved.writes += 1
    behind.saved[hash & behind.stripe_mask] = behind.unsaved.writes


cdef inline void behind_outdate_all(behind_t *behind) noexcept nogil:
    """What loads find that are under way is not what their keys have now, whichever these are."""
    cdef uint64_t stripe
    behind.unsaved.writes += 1
    for stripe in range(behind.stripe_mask + 1):
        behind.saved[stripe] = behind.unsaved.writes


cdef inline bint behind_is_current(const behind_t *behind, uint64_t hash, uint64_t as_of) noexcept nogil:
    """Whether what a load found that began after write number `as_of` is what an absent key has now."""
    return behind.saved[hash & behind.stripe_mask] <= as_of
