"""An arena before a store: open or closed, and what the flusher takes from it and gives back.

Nothing here waits, and no step needs memory once rows are taken. The calls on it are in `core.pyx`.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint8_t, uint64_t, uintptr_t

from slabcache.arena.header cimport CAPACITY_MAX, NIL, shape_t, slot_t
from slabcache._base cimport SlabBase, empty_rows, new_arena
from slabcache.arena.check cimport check_t
from slabcache.behind.arena.check cimport check_behind
from slabcache.behind.arena.slab cimport (
    behind_drain,
    behind_put_aside,
    behind_restore,
    behind_settle,
    behind_take_again,
)
from slabcache.machine.lock cimport lock_acquire, lock_release
from slabcache.behind.arena.marks cimport MARKED_SLOTS_MAX, mark_number_t
from slabcache.codec.record cimport Schema
from slabcache.behind.arena.ring cimport ring_oldest
from slabcache.behind.arena.room cimport room_expire
from slabcache.arena.slab cimport rows_t
from slabcache.behind.arena.unsaved cimport (
    SLEEP_IDLE,
    SLEEP_UNTIL_DUE,
    behind_attach,
    unsaved_pool_size,
    unsaved_size,
)

import numpy as np

from slabcache.arguments import whole
from slabcache.errors import ClosedError

cnp.import_array()

UNTIL_DUE, IDLE = SLEEP_UNTIL_DUE, SLEEP_IDLE       # what the flusher waits for


@cython.final
cdef class Batch:
    """Rows on their way to the store.

    It is made, with room for `limit` rows or all that are unsaved, before any row is taken: what is taken is
    then known to the one who has the batch, and can be given back, whatever fails.
    """

    def __cinit__(self, DrainCore cache not None, Py_ssize_t limit):
        cdef cnp.npy_intp room = min(max(limit, 0), <Py_ssize_t>cache._unsaved()[0])
        self.cache = <uintptr_t><void *>cache
        self.slots = cnp.PyArray_EMPTY(1, &room, cnp.NPY_UINT32, 0)
        self.since = cnp.PyArray_EMPTY(1, &room, cnp.NPY_UINT64, 0)
        self.deleted = cnp.PyArray_EMPTY(1, &room, cnp.NPY_BOOL, 0)
        self.keys = empty_rows(cache._key_schema.packed, room)
        self.values = empty_rows(cache._value_schema.packed, room)
        self.taken.slots = <slot_t *>cnp.PyArray_DATA(self.slots)
        self.taken.since = <uint64_t *>cnp.PyArray_DATA(self.since)
        self.taken.deleted = <uint8_t *>cnp.PyArray_DATA(self.deleted)
        self.taken.rows = rows_t(cnp.PyArray_BYTES(self.keys), cnp.PyArray_BYTES(self.values), 0)

    def __len__(self):
        return self.taken.rows.count

    def oldest(self):
        """When the oldest of the rows became dirty, in monotonic nanoseconds; none became so before 0."""
        cdef uint64_t oldest = <uint64_t>-1
        cdef size_t row
        for row in range(self.taken.rows.count):
            oldest = min(oldest, self.taken.since[row])
        return oldest

    def columns(self):
        """`(slots, since, deleted, keys, values)` of the rows, packed: views."""
        cdef Py_ssize_t count = self.taken.rows.count
        return (
            self.slots[:count],
            self.since[:count],
            self.deleted[:count],
            self.keys[:count],
            self.values[:count],
        )


cdef class DrainCore(SlabBase):
    """What the flusher of a `WriteBehindCache` has to do with."""

    def __init__(self, capacity, max_pending, key, value, default):
        cdef uint64_t entries = whole("capacity", capacity, 1, CAPACITY_MAX), spare, slots
        cdef Schema key_schema = Schema(key, "key"), value_schema = Schema(value, "value")
        cdef shape_t shape
        cdef bytes packed = None
        spare = max_pending
        if entries + spare > MARKED_SLOTS_MAX:
            raise ValueError(f"capacity and max_pending must be at most {MARKED_SLOTS_MAX} together")
        if default is not None:
            packed = PyBytes_FromStringAndSize(NULL, value_schema.size)
            value_schema.encode(default, PyBytes_AS_STRING(packed))
        slots = entries + spare
        shape = shape_t(
            entries, spare, key_schema.size, value_schema.size, unsaved_size(slots), unsaved_pool_size(slots)
        )
        self.draw_seed()
        self.adopt(new_arena(&shape, &self.seed), key_schema, value_schema)
        behind_attach(&self.behind, self.slab.header)
        self.behind.unsaved.max_pending = spare
        self.default = packed

    cdef check_t walk(self, slot_t *culprit) noexcept nogil:
        return check_behind(&self.behind, culprit)

    cdef int usable(self) except -1:
        if self.closed:
            raise ClosedError("the cache is closed")
        return self.ready()

    cdef int writable(self) except -1:
        if self.lock.forked:
            raise RuntimeError(
                "a forked child may read a WriteBehindCache, but not write to it: "
                "only its parent writes to the store"
            )
        return self.usable()

    cdef int lock_for_write(self) except -1:
        """Lock for a scalar call. What was encoded before may have run code that has closed the cache."""
        lock_acquire(&self.lock)
        if self.closed:
            lock_release(&self.lock)
            self.usable()
        return 0

    cdef PyThreadState *enter_for_write(self, uint64_t rows) except? NULL:
        """Lock for a batch. It may have waited for the lock while the cache was closed."""
        cdef PyThreadState *state = self.enter(rows)
        if self.closed:
            self.leave(state)
            self.usable()
        return state

    # ---- writing behind --------------------------------------------------------------------------------

    def _drain(self, Batch batch not None, uint64_t until):
        """Take what is to be written next into an empty batch. Nothing of this needs memory."""
        cdef Py_ssize_t room = cnp.PyArray_DIM(batch.slots, 0)
        cdef PyThreadState *state
        self.check_batch(batch)
        state = self.enter(room)
        behind_drain(&self.behind, until, room, &batch.taken)
        self.leave(state)

    def _take_again(self, Batch batch not None, cnp.ndarray slots not None):
        """Take failing rows into an empty batch: those of `slots` that are failing still."""
        cdef cnp.ndarray numbers = self.checked_slots(slots)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(numbers, 0)
        cdef slot_t *data = <slot_t *>cnp.PyArray_DATA(numbers)
        cdef PyThreadState *state
        self.check_batch(batch)
        if batch.taken.rows.count or count > cnp.PyArray_DIM(batch.slots, 0):
            raise ValueError(f"slots: {count} are more than the batch has room for")
        state = self.enter(count)
        behind_take_again(&self.behind, data, count, &batch.taken)
        self.leave(state)

    def _settle(self, cnp.ndarray slots not None, bint saved):
        """The store has confirmed rows of a batch or, where not `saved`, refused them for good."""
        cdef cnp.ndarray numbers = self.checked_slots(slots)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(numbers, 0)
        cdef slot_t *data = <slot_t *>cnp.PyArray_DATA(numbers)
        cdef PyThreadState *state = self.enter(count)
        behind_settle(&self.behind, data, count, saved)
        self.leave(state)

    def _put_aside(self, cnp.ndarray slots not None, cnp.ndarray since not None):
        """The store did not take these rows of a batch, each by itself: they are failing."""
        cdef cnp.ndarray numbers = self.checked_slots(slots)
        cdef cnp.ndarray times = np.ascontiguousarray(since, np.uint64)
        cdef cnp.npy_intp count = cnp.PyArray_DIM(numbers, 0)
        cdef slot_t *data = <slot_t *>cnp.PyArray_DATA(numbers)
        cdef uint64_t *times_data = <uint64_t *>cnp.PyArray_DATA(times)
        cdef PyThreadState *state
        if cnp.PyArray_NDIM(times) != 1 or cnp.PyArray_DIM(times, 0) != count:
            raise ValueError("since: not as many as slots")
        state = self.enter(count)
        behind_put_aside(&self.behind, data, times_data, count)
        self.leave(state)

    def _restore(self, Batch batch not None):
        """Rows of a batch that are not settled are dirty again. Nothing of this needs memory."""
        cdef PyThreadState *state
        self.check_batch(batch)
        state = self.enter(batch.taken.rows.count)
        behind_restore(&self.behind, batch.taken.slots, batch.taken.since, batch.taken.rows.count)
        self.leave(state)

    cdef int check_batch(self, Batch batch) except -1:
        if batch.cache != <uintptr_t><void *>self:
            raise ValueError("batch: not of this cache")
        return self.ready()

    cdef cnp.ndarray checked_slots(self, cnp.ndarray slots):
        cdef cnp.ndarray numbers = np.ascontiguousarray(slots, np.uint32)
        if cnp.PyArray_NDIM(numbers) != 1:
            raise ValueError("slots must be a one-dimensional array")
        self.ready()
        if cnp.PyArray_DIM(numbers, 0) and numbers.max() > self.slab.header.slot_count:
            raise ValueError("slots: not from a batch")
        return numbers

    def _keeps_room(self):
        """Whether room is kept for a change."""
        cdef bint keeps
        self.ready()
        lock_acquire(&self.lock)
        room_expire(&self.behind)
        keeps = self.behind.unsaved.kept != 0
        lock_release(&self.lock)
        return keeps

    def _sleep(self, uint64_t sleep):
        """The flusher is about to wait for what `sleep` says. `(unsaved, pends, since)`: how many rows are
        unsaved, whether evicted ones wait for a batch, and when the oldest became dirty."""
        cdef bint pends
        self.ready()
        lock_acquire(&self.lock)
        self.behind.unsaved.sleep = sleep
        self.behind.unsaved.bell = False
        pends = ring_oldest(&self.behind.pending) != NIL
        lock_release(&self.lock)
        unsaved, _, _, since = self._unsaved()
        return unsaved, pends, since

    def _unsaved(self):
        """`(unsaved, pending, failing, since)`: counts, and when the oldest that is not failing became dirty,
        in monotonic nanoseconds."""
        cdef uint64_t count, pending, failing, since = 0
        cdef mark_number_t oldest
        self.ready()
        lock_acquire(&self.lock)
        count = self.behind.unsaved.count
        pending = self.behind.unsaved.pending
        failing = self.behind.unsaved.failing
        oldest = ring_oldest(&self.behind.dirty)
        if oldest:
            since = self.behind.marks.marks[oldest].since
        lock_release(&self.lock)
        return count, pending, failing, since

    @property
    def _slots(self):
        """Unsaved entries at most."""
        self.ready()
        return self.slab.header.slot_count

    @property
    def _forked(self):
        """Whether this is a child of the process that made the cache."""
        return self.lock.forked

    def _check_open(self):
        self.usable()

    def _close(self):
        """From now on all calls are refused; whether they were not before."""
        lock_acquire(&self.lock)
        was = self.closed
        self.closed = True
        lock_release(&self.lock)
        return not was

    def _reopen(self):
        """It could not be closed."""
        self.closed = False

    @property
    def closed(self):
        """Whether `close()` has been called."""
        return self.closed
