"""Room: how many more slots may become unsaved, and for whom room is kept.

A change of many rows needs all its room at one moment, and small ones would take it bit by bit. So room is
kept for the change that has waited longest: all others find that much less. But whoever it is kept for may be
unable to go on: its event loop is blocked by another write, say. So room is kept on a lease, which ends

- when the change is made, or given up;
- a RESPITE after there is room enough, as it has been told then;
- when rows that fail by themselves leave too little room for it;
- when the store fails, or has saved nothing for as long as PATIENCE.

After the last, no room is kept until the store has saved rows again: small changes make use of what there is.

Each function needs the lock of the cache.
"""

from libc.stdint cimport uint8_t, uint64_t

from slabcache.arena.header cimport NIL, slot_t
from slabcache.behind.arena.marks cimport STATE_CLEAN, STATE_FLUSHING, STATE_MASK
from slabcache.machine.native cimport native_now
from slabcache.behind.arena.unsaved cimport behind_state, behind_t


cdef enum:
    RESPITE = 100               # milliseconds
    PATIENCE = 5000             # milliseconds
    NANOSECONDS = 1_000_000     # in a millisecond


cdef struct room_t:             # rows of a change
    uint64_t needed             # that become unsaved
    uint64_t lacking            # of them, those that find no room, kept or not
    bint fits                   # whether the change may be made now


cdef inline uint64_t room_unused(const behind_t *behind) noexcept nogil:
    """Slots that may become unsaved, kept or not."""
    return behind.slab.header.slot_count - behind.unsaved.count


cdef inline uint64_t room_free(const behind_t *behind, uint64_t ticket) noexcept nogil:
    """Slots that may become unsaved by the change with a ticket; those that have not waited have ticket 0."""
    cdef uint64_t unused = room_unused(behind)
    cdef uint64_t kept = 0 if ticket and ticket == behind.unsaved.keeper else behind.unsaved.kept
    return unused - kept if unused > kept else 0


cdef inline bint room_takes(const behind_t *behind, slot_t slot, bint retakes) noexcept nogil:
    """Whether a write of a key, which is in `slot`, or not in memory where that is NIL, makes one more slot
    unsaved. Where `retakes`, one that is just being saved counts as well: rows that are written all the time
    would keep their slots, and nobody else would get any."""
    cdef uint8_t state
    if slot == NIL:
        return True
    state = behind_state(behind, slot) & STATE_MASK
    return state == STATE_CLEAN or (retakes and state == STATE_FLUSHING)


cdef inline bint room_is_denied(const behind_t *behind, uint64_t ticket, slot_t slot) noexcept nogil:
    """Whether a write of one key has to wait because room is kept."""
    if not behind.unsaved.kept:     # mostly
        return False
    return room_free(behind, ticket) == 0 and room_takes(behind, slot, ticket != behind.unsaved.keeper)


cdef inline void room_let_go(behind_t *behind) noexcept nogil:
    behind.unsaved.kept = behind.unsaved.keeper = 0


cdef inline void room_give_up(behind_t *behind, uint64_t ticket) noexcept nogil:
    """The change with a ticket has been made, or never will be."""
    if ticket and ticket == behind.unsaved.keeper:
        room_let_go(behind)


cdef inline bint room_may_do(const behind_t *behind, uint64_t needed) noexcept nogil:
    """Whether there may be so much room, with the rows that fail by themselves left in memory."""
    return needed <= behind.slab.header.slot_count - behind.unsaved.failing


cdef inline void room_lose(behind_t *behind) noexcept nogil:
    """A row fails by itself."""
    if not room_may_do(behind, behind.unsaved.kept):
        room_let_go(behind)


cdef inline void room_fail(behind_t *behind) noexcept nogil:
    """The store has not taken rows."""
    room_let_go(behind)
    behind.unsaved.is_failing = True


cdef inline void room_expire(behind_t *behind) noexcept nogil:
    """End a lease whose time is over."""
    if behind.unsaved.keeper and native_now() >= behind.unsaved.kept_until:
        if room_unused(behind) < behind.unsaved.kept:
            room_fail(behind)
        else:
            room_let_go(behind)


cdef inline bint room_for_one(behind_t *behind, uint64_t ticket, slot_t slot) noexcept nogil:
    """Whether the write of one key need not wait, which is made now, then: no more room is kept for it."""
    if room_is_denied(behind, ticket, slot):
        room_expire(behind)
    if room_is_denied(behind, ticket, slot):
        return False
    room_give_up(behind, ticket)
    return True


cdef inline void room_renew(behind_t *behind, uint64_t lease) noexcept nogil:
    behind.unsaved.kept_until = native_now() + lease * NANOSECONDS


cdef inline uint64_t room_ask(behind_t *behind, uint64_t ticket, uint64_t needed) noexcept nogil:
    """Have room kept for a change, unless one waits that is older; its ticket, which is new where it is 0."""
    if not ticket:
        behind.unsaved.tickets += 1
        ticket = behind.unsaved.tickets
    room_expire(behind)
    if behind.unsaved.is_failing or (behind.unsaved.keeper and behind.unsaved.keeper < ticket):
        return ticket
    if not room_may_do(behind, needed):
        room_give_up(behind, ticket)
        return ticket
    behind.unsaved.keeper = ticket
    behind.unsaved.kept = needed
    room_renew(behind, PATIENCE if room_unused(behind) < behind.unsaved.kept else RESPITE)
    return ticket


cdef inline void room_settle(behind_t *behind, uint64_t unused) noexcept nogil:
    """The store has taken rows; `unused` is what `room_unused` was before."""
    behind.unsaved.is_failing = False
    if room_unused(behind) < behind.unsaved.kept:
        room_renew(behind, PATIENCE)
    elif unused < behind.unsaved.kept:
        room_renew(behind, RESPITE)
