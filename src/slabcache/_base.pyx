"""`SlabBase`, what every cache on an arena has: lock, size, iteration, statistics, copies of its content.

`_core.pyx` and `_batch.pyx` build the cache of `SlabCache` on it, `behind/drain.pyx` and `behind/core.pyx`
the one in front of a store. `Evicted` is where a call makes room for the rows that it evicts, and how they
are handed out: by `return_evicted`, or to `on_evict`.

While a lock is held no Python code runs, nothing is allocated and no reference dropped. All results are made
before a change, so that a call without memory has changed nothing.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from slabcache.arena.header cimport (
    KEY_SIZE_MAX,
    NIL,
    arena_create,
    arena_destroy,
    arena_size,
    counters_t,
    header_t,
    seed_t,
    shape_t,
    slot_t,
)
from slabcache.arena.check cimport CHECK_OK, check_slab, check_t
from slabcache.machine.lock cimport (
    batch_enter,
    batch_leave,
    lock_acquire,
    lock_destroy,
    lock_init,
    lock_release,
)
from slabcache.arena.lru cimport lru_least_recent, lru_link, lru_most_recent
from slabcache.codec.record cimport Schema
from slabcache.arena.slab cimport rows_t, slab_attach, slab_export_all, slab_key, slab_value

import os

import numpy as np

from slabcache.codec.rows import from_rows

cnp.import_array()

cdef extern from "Python.h":
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)

cdef tuple CHECKS = (           # in the order of check_t
    "",
    "the header is not that of an arena of this layout",
    "I1/I4: a live slot is not found from its key",
    "I1: the table does not hold the live slots alone",
    "I1: the overflow counters do not add up",
    "I2: the list does not visit each live slot once",
    "I2: the list differs forward and backward",
    "I3: live and free slots are not all slots",
    "I5: the counters do not give the size",
    "a hint names no slot",
    "I6: states, rings and counts of unsaved entries do not agree",
    "I6: a mark is neither free nor that of one slot, or both",
)


@cython.no_gc_clear
cdef class Typed:
    """What keys and values are. Methods rely on it for as long as the object can be reached, so the
    collector, when it breaks a cycle through `on_evict`, must leave it alone.
    """

    def __cinit__(self):
        self._key_schema = self._value_schema = Schema.__new__(Schema)


cdef Evicted new_evicted(Schema key_schema, Schema value_schema, cnp.npy_intp rows):
    cdef Evicted evicted = Evicted.__new__(Evicted)
    evicted.key_schema, evicted.value_schema = key_schema, value_schema
    evicted.packed_keys = empty_rows(key_schema.packed, rows)
    evicted.packed_values = empty_rows(value_schema.packed, rows)
    evicted.keys = evicted.packed_keys if is_packed(key_schema) else np.zeros(rows, key_schema.dtype)
    evicted.values = evicted.packed_values if is_packed(value_schema) else np.zeros(rows, value_schema.dtype)
    evicted.both = evicted.keys, evicted.values
    evicted.rows = rows_t(
        cnp.PyArray_BYTES(evicted.packed_keys), cnp.PyArray_BYTES(evicted.packed_values), 0
    )
    return evicted


@cython.final
@cython.no_gc          # it has arrays of its own making, and lives as long as one call
cdef class Evicted:
    cdef tuple finish(self):
        """`(keys, values)` of the rows that have been evicted. Nothing of this needs memory."""
        cdef Py_ssize_t count = self.rows.count
        if self.finished:       # somebody has seen the arrays, and may have changed them
            return self.both
        self.finished = True
        if not is_packed(self.key_schema):
            self.key_schema.unpack_to(
                cnp.PyArray_BYTES(self.keys), cnp.PyArray_BYTES(self.packed_keys), count
            )
        if not is_packed(self.value_schema):
            self.value_schema.unpack_to(
                cnp.PyArray_BYTES(self.values), cnp.PyArray_BYTES(self.packed_values), count
            )
        shorten(self.keys, count)
        shorten(self.values, count)
        return self.both


cdef header_t *new_arena(const shape_t *shape, const seed_t *seed) except NULL:
    cdef header_t *header = arena_create(shape, seed)
    if header is NULL:
        raise MemoryError(
            f"cannot reserve {arena_size(shape)} bytes for {shape.capacity + shape.spare} entries; "
            "choose a smaller capacity"
        )
    return header


cdef class SlabBase(Typed):
    """An arena, and the lock that owns it."""

    def __cinit__(self):
        lock_init(&self.lock)

    def __dealloc__(self):
        lock_destroy(&self.lock)
        arena_destroy(self.slab.header)

    cdef int adopt(self, header_t *header, Schema key_schema, Schema value_schema) except -1:
        """Become the owner of a new arena, once."""
        if self.slab.header is not NULL:
            arena_destroy(header)
            raise RuntimeError("a cache cannot be initialised twice")
        slab_attach(&self.slab, header)
        self.seed = header.seed         # keys are hashed by this one, whoever else has drawn one meanwhile
        self.initialised = True
        self._key_schema = key_schema
        self._value_schema = value_schema
        return 0

    cdef int draw_seed(self) except -1:
        """Secret words from the system's randomness."""
        cdef bytes secret = os.urandom(sizeof(self.seed))
        if self.slab.header is NULL:
            memcpy(&self.seed, PyBytes_AS_STRING(secret), sizeof(self.seed))
        return 0

    cdef int ready(self) except -1:
        """Calls that encode a key are refused by its schema; the others ask here."""
        if not self.initialised:
            raise RuntimeError("the cache is not initialised: its __init__ has not run")
        return 0

    cdef int usable(self) except -1:
        """A cache that can be closed refuses calls once it is."""
        return self.ready()

    cdef uint64_t object_size(self) noexcept:
        """Bytes of the object itself."""
        return sizeof(SlabBase)

    cdef check_t walk(self, slot_t *culprit) noexcept nogil:
        """The first invariant that is broken, and the slot where it was seen. Needs the lock."""
        return check_slab(&self.slab, culprit)

    cdef uint64_t size(self) noexcept:
        """Entries now; not `len(self)`, which a subclass may have changed."""
        lock_acquire(&self.lock)
        cdef uint64_t size = self.slab.header.size
        lock_release(&self.lock)
        return size

    # ---- locking -------------------------------------------------------------------------------------

    cdef PyThreadState *enter(self, uint64_t rows) noexcept:
        """Lock for a batch; a large one lets the GIL go."""
        if rows >= BATCH_ROWS and batch_enter(&self.lock):
            return PyEval_SaveThread()
        lock_acquire(&self.lock)
        return NULL

    cdef void leave(self, PyThreadState *state) noexcept:
        if state is NULL:
            release(self)
        else:
            batch_leave(&self.lock)     # first: at interpreter exit the next line does not return
            PyEval_RestoreThread(state)

    # ---- the cache as a whole --------------------------------------------------------------------------

    def __len__(self):
        self.usable()
        return self.size()

    def _export(self):
        """`(capacity, keys, values)` at one moment: what copies and pickles keep."""
        cdef cnp.ndarray keys, values
        cdef Py_ssize_t room
        cdef bint fits = False
        cdef rows_t rows
        cdef PyThreadState *state
        cdef slot_t capacity
        self.usable()
        while not fits:         # arrays are made without the lock: meanwhile the cache may grow
            room = self.size()
            keys = empty_rows(self._key_schema.packed, room)
            values = empty_rows(self._value_schema.packed, room)
            rows = rows_t(cnp.PyArray_BYTES(keys), cnp.PyArray_BYTES(values), 0)
            state = self.enter(room)
            capacity = self.slab.header.capacity
            fits = <Py_ssize_t>self.slab.header.size <= room
            if fits:
                slab_export_all(&self.slab, &rows)
            self.leave(state)
        if <Py_ssize_t>rows.count < room:
            keys = keys[:rows.count].copy()
            values = values[:rows.count].copy()
        return capacity, from_rows(self._key_schema, keys), from_rows(self._value_schema, values)

    def snapshot(self):
        """All entries as arrays `(keys, values)`, from least to most recent; a copy. O(size).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> cache.snapshot()
        (array([1, 2], dtype=uint64), array([10, 20], dtype=int32))
        """
        return self._export()[1:]

    def reset_stats(self):
        """Set the counts of `stats()` to zero; the size stays. O(1)."""
        self.usable()
        lock_acquire(&self.lock)
        self.base = self.slab.header.counters
        lock_release(&self.lock)

    def _stats(self):
        """The numbers of `Stats`, read at one moment."""
        cdef counters_t now, base
        cdef slot_t size, capacity
        self.ready()
        lock_acquire(&self.lock)
        now = self.slab.header.counters
        base = self.base
        size = self.slab.header.size
        capacity = self.slab.header.capacity
        lock_release(&self.lock)
        return (
            now.hits - base.hits,
            now.misses - base.misses,
            now.insertions - base.insertions,
            now.updates - base.updates,
            now.deletions - base.deletions,
            now.evictions - base.evictions,
            size,
            capacity,
        )

    @property
    def nbytes(self):
        """Bytes that the cache has allocated; all at construction, touched only as it fills."""
        self.ready()
        lock_acquire(&self.lock)
        cdef uint64_t size = self.slab.header.arena_size
        lock_release(&self.lock)
        return size + self.object_size()

    def __sizeof__(self):
        cdef uint64_t size = 0
        if self.slab.header is not NULL:
            lock_acquire(&self.lock)
            size = self.slab.header.arena_size
            lock_release(&self.lock)
        return object.__sizeof__(self) + size       # that of object knows what a subclass has added

    @property
    def bytes_per_entry(self):
        """`nbytes / capacity`."""
        self.ready()
        lock_acquire(&self.lock)
        cdef uint64_t size = self.slab.header.arena_size
        cdef uint64_t capacity = self.slab.header.capacity
        lock_release(&self.lock)
        return (size + self.object_size()) / <double>capacity

    def _check(self):
        """Walk the arena and raise AssertionError, with its state, where an invariant is broken.

        For tests and bug reports. O(capacity), without the GIL.
        """
        cdef slot_t culprit = NIL
        cdef check_t status
        cdef PyThreadState *state
        cdef header_t header
        self.ready()
        state = self.enter(BATCH_ROWS)
        status = self.walk(&culprit)
        header = self.slab.header[0]
        self.leave(state)
        if status != CHECK_OK:
            header.seed = seed_t([0, 0, 0, 0])      # secret
            raise AssertionError(f"{CHECKS[status]} (slot {culprit}); {header}")

    def _iterate(self, *, bint backward, bint with_key, bint with_value):
        """An iterator over keys, values or both, from least to most recent or backward."""
        return SlabIterator(self, backward, with_key, with_value)


@cython.final
cdef class SlabIterator:
    """Walks the LRU list and notices any change of content or order."""

    def __cinit__(self, SlabBase cache not None, bint backward, bint with_key, bint with_value):
        cache.usable()
        self.backward = backward
        self.with_key = with_key
        self.with_value = with_value
        lock_acquire(&cache.lock)
        self.version = cache.slab.header.version
        self.left = cache.slab.header.size
        self.slot = lru_most_recent(&cache.slab.lru) if backward else lru_least_recent(&cache.slab.lru)
        lock_release(&cache.lock)
        self.cache = cache

    def __iter__(self):
        return self

    def __length_hint__(self):
        return self.left

    def __next__(self):
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef char small[SCRATCH_SIZE]
        cdef SlabBase cache = self.cache
        cdef Schema keys = cache._key_schema, values = cache._value_schema
        cdef char *data
        cdef bytes _large = scratch(values.size, small, &data)
        cdef slot_t slot, following = NIL
        cdef bint valid, passed
        if self.exhausted:
            raise StopIteration
        lock_acquire(&cache.lock)
        valid = self.version == cache.slab.header.version
        slot = self.slot
        if valid and slot != NIL:
            memcpy(key_bytes, slab_key(&cache.slab, slot), keys.size)
            memcpy(data, slab_value(&cache.slab, slot), values.size)
            link = lru_link(&cache.slab.lru, slot)
            following = link.next if self.backward else link.prev
        lock_release(&cache.lock)
        if not valid:
            raise RuntimeError("the cache changed during iteration; iterate over snapshot() instead")
        if slot == NIL:
            self.exhausted = True
            raise StopIteration
        if not self.with_value:
            item = keys.decode(key_bytes)
        elif not self.with_key:
            item = values.decode(data)
        else:
            item = keys.decode(key_bytes), values.decode(data)
        lock_acquire(&cache.lock)
        passed = self.slot == slot and self.left > 0    # last: what fails passes no entry
        if passed:
            self.slot = following
            self.left -= 1
        lock_release(&cache.lock)
        return item if passed else self.__next__()      # another thread has come first
