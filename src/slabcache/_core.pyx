"""The cache as an extension type: argument checks, locking, status codes to exceptions.

Every method has the same three steps. Arguments are encoded to packed bytes, which may run the
caller's code and allocate; then, with the lock held, functions of `_slab.pxd` do the work, which does
neither; then, with the lock released, results are decoded, errors raised and `on_evict` called.
`_batch.pyx` adds the calls that take many keys, `slabcache.SlabCache` the parts of a mapping that are
plain Python.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from slabcache._arena cimport (
    CAPACITY_MAX,
    KEY_SIZE_MAX,
    NIL,
    arena_create,
    arena_destroy,
    arena_size,
    counters_t,
    header_t,
    slot_t,
)
from slabcache._check cimport CHECK_OK, check_slab, check_t
from slabcache._field cimport delta_t, field_add, field_t
from slabcache._hash cimport seed_t
from slabcache._lock cimport (
    batch_enter,
    batch_leave,
    gate_close,
    gate_install,
    gate_open,
    lock_acquire,
    lock_destroy,
    lock_init,
    lock_release,
)
from slabcache._lru cimport lru_least_recent, lru_link, lru_most_recent
from slabcache._native cimport DEBUG, native_copy
from slabcache._record cimport Record, Schema, record_data, record_new, schema_encode
from slabcache._slab cimport (
    rows_t,
    slab_attach,
    slab_clear,
    slab_erase,
    slab_export_all,
    slab_find,
    slab_get,
    slab_hash,
    slab_insert,
    slab_key,
    slab_move,
    slab_put,
    slab_t,
    slab_touch,
    slab_updated,
    slab_value,
)
from slabcache._table cimport table_find

import os
from operator import index as as_index

from slabcache.rows import from_rows

cnp.import_array()

cdef extern from "Python.h":
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)
    void Py_FatalError(const char *message)
    int Py_EnterRecursiveCall(const char *where) except -1
    void Py_LeaveRecursiveCall()

cdef enum:
    SCRATCH_SIZE = 256          # bytes of a value that a scalar call keeps on the stack
    BATCH_ROWS = 256            # from so many rows on a batch lets the GIL go
    CHECKED_CAPACITY = 64       # debug builds check caches up to this size after each change

cdef object MISSING = object()
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
)


cdef inline bytes scratch(Py_ssize_t size):
    """Private memory for a value too large for the stack, or None."""
    return None if size <= SCRATCH_SIZE else PyBytes_FromStringAndSize(NULL, size)


cdef inline char *scratch_data(bytes large, char *small) noexcept:
    return small if large is None else PyBytes_AS_STRING(large)


cdef uint64_t checked_capacity(object capacity) except 0:
    if isinstance(capacity, bool) or not hasattr(capacity, "__index__"):
        raise TypeError(f"capacity must be an integer, not {type(capacity).__name__}")
    number = as_index(capacity)
    if not 1 <= number <= CAPACITY_MAX:
        raise ValueError(f"capacity must be from 1 to {CAPACITY_MAX}, not {number}")
    return number


cdef header_t *new_arena(uint64_t capacity, Schema key, Schema value, seed_t *seed) except NULL:
    cdef header_t *header = arena_create(capacity, key.size, value.size, seed)
    if header is NULL:
        raise MemoryError(
            f"cannot reserve {arena_size(capacity, key.size, value.size)} bytes for {capacity} entries; "
            "choose a smaller capacity"
        )
    return header


@cython.final
cdef class Sink:
    """Arrays of one row, and where in them an evicted row goes."""


cdef inline rows_t *sink_rows(Sink sink) noexcept:
    return NULL if sink is None else &sink.rows


@cython.no_gc_clear
cdef class Typed:
    """What keys and values are. Methods rely on it for as long as the object can be reached, so the
    collector, when it breaks a cycle through `on_evict`, must leave it alone.
    """

    def __cinit__(self):
        self._key_schema = self._value_schema = Schema.__new__(Schema)


cdef inline void release(CacheCore self) noexcept:
    """Release the lock after a scalar call or a small batch."""
    cdef slot_t culprit
    if DEBUG and self.slab.header.capacity <= CHECKED_CAPACITY:
        if check_slab(&self.slab, &culprit) != CHECK_OK:
            Py_FatalError("slabcache: an invariant is broken")
    lock_release(&self.lock)


cdef inline bint take_value(CacheCore self, const char *key, look_up_t how, char *data) noexcept:
    """Copy the value of `key` to `data`; whether there is one."""
    cdef uint64_t hash
    cdef slot_t slot
    lock_acquire(&self.lock)
    hash = slab_hash(&self.slab, key)
    if how == LOOK_UP_GET:
        slot = slab_get(&self.slab, hash, key)
    else:
        slot = table_find(&self.slab.table, hash, key)
    if slot != NIL:
        native_copy(data, slab_value(&self.slab, slot), self._value_schema.size)
        if how == LOOK_UP_POP:
            slab_erase(&self.slab, hash, slot)
    release(self)
    return slot != NIL


cdef inline object look_up(CacheCore self, object key, look_up_t how, object missing):
    """The value of `key`, or `missing`."""
    cdef char key_bytes[KEY_SIZE_MAX]
    cdef char small[SCRATCH_SIZE]
    cdef char *data
    cdef bytes large
    cdef Record record
    schema_encode(self._key_schema, key, key_bytes)
    # The result is made before the look-up: nothing may be allocated while the lock is held.
    if self._value_schema.is_record:
        record = record_new(self._value_schema)
        return record if take_value(self, key_bytes, how, record_data(record)) else missing
    large = scratch(self._value_schema.size)
    data = scratch_data(large, small)
    return self._value_schema.decode_field(0, data) if take_value(self, key_bytes, how, data) else missing


cdef class CacheCore(Typed):
    """The typed LRU cache below `SlabCache`: everything that touches the arena."""

    def __cinit__(self):
        lock_init(&self.lock)

    def __init__(self, capacity, key, value, on_evict):
        cdef uint64_t entries = checked_capacity(capacity)
        cdef Schema key_schema = Schema(key, "key"), value_schema = Schema(value, "value")
        cdef bytes secret = os.urandom(sizeof(self.seed))
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict must be callable, not {type(on_evict).__name__}")
        if self.slab.header is not NULL:
            raise RuntimeError("a cache cannot be initialised twice")
        memcpy(&self.seed, PyBytes_AS_STRING(secret), sizeof(self.seed))
        slab_attach(&self.slab, new_arena(entries, key_schema, value_schema, &self.seed))
        self._key_schema = key_schema
        self._value_schema = value_schema
        self.on_evict = on_evict

    def __dealloc__(self):
        lock_destroy(&self.lock)
        arena_destroy(self.slab.header)

    cdef int ready(self) except -1:
        """Calls that encode a key are refused by its schema; the others ask here."""
        if self.slab.header is NULL:
            raise RuntimeError("the cache is not initialised: its __init__ has not run")
        return 0

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

    # ---- scalar calls: look-ups ------------------------------------------------------------------------

    def __getitem__(self, key):
        value = look_up(self, key, LOOK_UP_GET, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def get(self, key, default=None):
        """The value of `key`, which becomes the most recent entry, or `default`; counted. O(1).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache[1] = -5
        >>> cache.get(1), cache.get(2), cache.get(2, 0)
        (-5, None, 0)
        """
        return look_up(self, key, LOOK_UP_GET, default)

    def peek(self, key, default=None):
        """The value of `key`, or `default`, without counting it or changing the order. O(1).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="S8", value="f8")
        >>> cache[b"pi"] = 3.14
        >>> cache.peek(b"pi"), cache.stats().hits
        (3.14, 0)
        """
        return look_up(self, key, LOOK_UP_PEEK, default)

    def __contains__(self, key):
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef slot_t slot
        schema_encode(self._key_schema, key, key_bytes)
        lock_acquire(&self.lock)
        slot = slab_find(&self.slab, key_bytes)
        release(self)
        return slot != NIL

    def touch(self, key):
        """Make the entry of `key` the most recent; whether there is one. O(1).

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> cache.touch(1), cache.touch(3), list(cache)
        (True, False, [2, 1])
        """
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef slot_t slot
        schema_encode(self._key_schema, key, key_bytes)
        lock_acquire(&self.lock)
        slot = slab_find(&self.slab, key_bytes)
        if slot != NIL:
            slab_touch(&self.slab, slot)
        release(self)
        return slot != NIL

    # ---- scalar calls: writes --------------------------------------------------------------------------

    cdef int put(self, const char *key, const char *value) except -1:
        cdef Sink sink = self.new_sink()
        lock_acquire(&self.lock)
        slab_put(&self.slab, slab_hash(&self.slab, key), key, value, sink_rows(sink))
        release(self)
        return self.report_sink(sink)

    cdef Sink new_sink(self):
        """Room for the one row that a scalar call may evict; None when nobody wants it."""
        if self.on_evict is None:
            return None
        cdef Sink sink = Sink()
        sink.keys = empty_rows(self._key_schema.packed, 1)
        sink.values = empty_rows(self._value_schema.packed, 1)
        sink.rows = rows_t(cnp.PyArray_BYTES(sink.keys), cnp.PyArray_BYTES(sink.values), 0)
        return sink

    cdef int report_sink(self, Sink sink) except -1:
        return self.report(sink.keys, sink.values) if sink is not None and sink.rows.count else 0

    cdef int report(self, object keys, object values) except -1:
        """Hand evicted rows to the user; no lock is held."""
        Py_EnterRecursiveCall(" in on_evict")   # a callback written in C would recurse without a limit
        try:
            self.on_evict(from_rows(self._key_schema, keys), from_rows(self._value_schema, values))
        finally:
            Py_LeaveRecursiveCall()
        return 0

    def __setitem__(self, key, value):
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef char small[SCRATCH_SIZE]
        cdef char *data
        cdef bytes large
        schema_encode(self._key_schema, key, key_bytes)
        large = scratch(self._value_schema.size)
        data = scratch_data(large, small)
        schema_encode(self._value_schema, value, data)
        self.put(key_bytes, data)

    def __delitem__(self, key):
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef slot_t slot
        schema_encode(self._key_schema, key, key_bytes)
        lock_acquire(&self.lock)
        slot = slab_find(&self.slab, key_bytes)
        if slot != NIL:
            slab_erase(&self.slab, slab_hash(&self.slab, key_bytes), slot)
        release(self)
        if slot == NIL:
            raise KeyError(key)

    def pop(self, key, default=MISSING):
        """Delete the entry of `key` and return its value, or `default`. O(1).

        Raises
        ------
        KeyError
            There is no entry, and no default is given.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache[1] = 10
        >>> cache.pop(1), cache.pop(1, None)
        (10, None)
        """
        value = look_up(self, key, LOOK_UP_POP, MISSING)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self):
        """Delete the least recent entry and return it as `(key, value)`. O(1).

        Raises
        ------
        KeyError
            The cache is empty.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20})
        >>> cache.popitem()
        (1, 10)
        """
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef char small[SCRATCH_SIZE]
        cdef bytes large
        cdef char *data
        cdef slot_t slot
        self.ready()
        large = scratch(self._value_schema.size)
        data = scratch_data(large, small)
        lock_acquire(&self.lock)
        slot = lru_least_recent(&self.slab.lru)
        if slot != NIL:
            memcpy(key_bytes, slab_key(&self.slab, slot), self._key_schema.size)
            memcpy(data, slab_value(&self.slab, slot), self._value_schema.size)
            slab_erase(&self.slab, slab_hash(&self.slab, key_bytes), slot)
        release(self)
        if slot == NIL:
            raise KeyError("the cache is empty")
        return self._key_schema.decode(key_bytes), self._value_schema.decode(data)

    def setdefault(self, key, default=None):
        """The value of `key`, which is put there as `default` first when absent; counted as a look-up.

        O(1). `default` is looked at only when it is needed.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value="i4")
        >>> cache.setdefault(1, 10), cache.setdefault(1, 99)
        (10, 10)
        """
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef char small[SCRATCH_SIZE]
        cdef Schema schema = self._value_schema
        cdef bytes large = scratch(schema.size)
        cdef char *data = scratch_data(large, small)
        cdef Sink sink
        cdef uint64_t hash
        cdef slot_t slot
        schema_encode(self._key_schema, key, key_bytes)
        lock_acquire(&self.lock)
        slot = slab_find(&self.slab, key_bytes)
        if slot != NIL:
            slab_get(&self.slab, slab_hash(&self.slab, key_bytes), key_bytes)
            memcpy(data, slab_value(&self.slab, slot), schema.size)
        release(self)
        if slot != NIL:
            return schema.decode(data)
        schema.encode(default, data)
        sink = self.new_sink()
        lock_acquire(&self.lock)
        hash = slab_hash(&self.slab, key_bytes)
        slot = slab_get(&self.slab, hash, key_bytes)
        if slot == NIL:
            slab_insert(&self.slab, hash, key_bytes, data, sink_rows(sink), True)
        else:                   # another thread was faster, or the encoding of the default
            memcpy(data, slab_value(&self.slab, slot), schema.size)
        release(self)
        self.report_sink(sink)
        return schema.decode(data)

    def increment(self, key, field=None, by=1):
        """Add `by` to a numeric field of the entry, in place, and return its new value. O(1).

        `field` is left out where the value is a scalar. The entry becomes the most recent.

        Raises
        ------
        KeyError
            There is no entry.
        OverflowError
            The sum does not fit the field; nothing is changed.
        TypeError, ValueError
            The field is not numeric, or not there.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value=[("seen", "u8"), ("mentions", "u4")])
        >>> cache[7] = (1001, 0)
        >>> cache.increment(7, "mentions"), cache.increment(7, "mentions", by=4)
        (1, 5)
        """
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef char result[8]
        cdef delta_t delta
        cdef bint fits = True
        cdef slot_t slot
        cdef char *target
        cdef Py_ssize_t position
        cdef field_t *spec
        schema_encode(self._key_schema, key, key_bytes)
        position = self._value_schema.number_position(field)
        self._value_schema.encode_delta(position, by, &delta)
        spec = &self._value_schema.fields[position]
        lock_acquire(&self.lock)
        slot = slab_find(&self.slab, key_bytes)
        if slot != NIL:
            target = slab_value(&self.slab, slot) + spec.offset
            fits = field_add(spec, target, &delta)
            if fits:
                memcpy(result, target, spec.size)
                slab_updated(&self.slab, slot)
        release(self)
        if slot == NIL:
            raise KeyError(key)
        if not fits:
            raise OverflowError(f"{self._value_schema.label(position)}: the sum with {by} is out of range")
        return self._value_schema.decode_field(position, result)

    def update_fields(self, key, /, **fields):
        """Overwrite some fields of the entry, in place; the entry becomes the most recent. O(fields).

        Raises
        ------
        KeyError
            There is no entry.
        ValueError
            There is no field of that name.
        TypeError
            The value is a scalar, or a field gets an item of the wrong type.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(2, key="u8", value=[("seen", "u8"), ("mentions", "u4")])
        >>> cache[7] = (1001, 3)
        >>> cache.update_fields(7, seen=1002, mentions=0)
        >>> cache[7]
        Record(seen=1002, mentions=0)
        """
        cdef char key_bytes[KEY_SIZE_MAX]
        cdef char small[SCRATCH_SIZE]
        cdef Schema schema = self._value_schema
        cdef Py_ssize_t position
        cdef field_t *field
        cdef slot_t slot
        schema_encode(self._key_schema, key, key_bytes)
        if not schema.is_record:
            raise TypeError("update_fields needs a structured value; assign a scalar one")
        cdef bytes large = scratch(schema.size)
        cdef char *data = scratch_data(large, small)
        cdef bytes chosen_bytes = PyBytes_FromStringAndSize(NULL, schema.count)
        cdef char *chosen = PyBytes_AS_STRING(chosen_bytes)
        memset(chosen, 0, schema.count)
        for name, item in fields.items():
            position = schema.position_of(name)
            schema.encode_field(position, item, data + schema.fields[position].offset)
            chosen[position] = 1
        lock_acquire(&self.lock)
        slot = slab_find(&self.slab, key_bytes)
        if slot != NIL:
            for position in range(schema.count):
                if chosen[position]:
                    field = &schema.fields[position]
                    memcpy(slab_value(&self.slab, slot) + field.offset, data + field.offset, field.size)
            slab_updated(&self.slab, slot)
        release(self)
        if slot == NIL:
            raise KeyError(key)

    # ---- the cache as a whole --------------------------------------------------------------------------

    def __len__(self):
        self.ready()
        return self.size()

    def clear(self):
        """Delete all entries; the memory stays. O(size), without the GIL.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache[1] = 10
        >>> cache.clear()
        >>> len(cache), cache.stats().deletions
        (0, 1)
        """
        self.ready()
        cdef PyThreadState *state = self.enter(BATCH_ROWS)
        slab_clear(&self.slab)
        self.leave(state)

    def _export(self):
        """`(capacity, keys, values)` at one moment: what copies and pickles keep."""
        cdef cnp.ndarray keys, values
        cdef Py_ssize_t room
        cdef bint fits = False
        cdef rows_t rows
        cdef PyThreadState *state
        cdef slot_t capacity
        self.ready()
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

    def resize(self, capacity):
        """Change the capacity and return how many entries, the least recent ones, were evicted for it.

        The entries move to a new arena, without the GIL; until it returns both take memory. O(size).

        Raises
        ------
        ValueError
            The capacity is out of range.
        MemoryError
            The new arena cannot be had; the cache is unchanged.

        >>> from slabcache import SlabCache
        >>> cache = SlabCache(10, key="u8", value="i4")
        >>> cache.update({1: 10, 2: 20, 3: 30})
        >>> cache.resize(2), list(cache)
        (1, [2, 3])
        """
        cdef uint64_t entries = checked_capacity(capacity)
        cdef cnp.ndarray keys = None, values = None
        cdef header_t *header
        cdef slab_t target
        cdef rows_t evicted
        cdef rows_t *sink = NULL
        cdef Py_ssize_t room = 0, surplus
        cdef bint fits = False
        cdef PyThreadState *state
        self.ready()
        header = new_arena(entries, self._key_schema, self._value_schema, &self.seed)
        slab_attach(&target, header)
        try:
            while not fits:     # as in _export
                if self.on_evict is not None:
                    room = max(<Py_ssize_t>self.size() - <Py_ssize_t>entries, 0)
                    keys = empty_rows(self._key_schema.packed, room)
                    values = empty_rows(self._value_schema.packed, room)
                    evicted = rows_t(cnp.PyArray_BYTES(keys), cnp.PyArray_BYTES(values), 0)
                    sink = &evicted
                state = self.enter(BATCH_ROWS)
                surplus = max(<Py_ssize_t>self.slab.header.size - <Py_ssize_t>entries, 0)
                fits = sink is NULL or surplus <= room
                if fits:
                    slab_move(&target, &self.slab, sink)
                    header = self.slab.header
                    self.slab = target
                self.leave(state)
        finally:
            arena_destroy(header)       # the old arena, or after an error the new one
        if surplus and sink is not NULL:
            self.report(keys[:surplus], values[:surplus])
        return surplus

    def reset_stats(self):
        """Set the counts of `stats()` to zero; the size stays. O(1)."""
        self.ready()
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
        return size + sizeof(CacheCore)

    @property
    def bytes_per_entry(self):
        """`nbytes / capacity`."""
        self.ready()
        lock_acquire(&self.lock)
        cdef uint64_t size = self.slab.header.arena_size
        cdef uint64_t capacity = self.slab.header.capacity
        lock_release(&self.lock)
        return (size + sizeof(CacheCore)) / <double>capacity

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
        status = check_slab(&self.slab, &culprit)
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

    def __cinit__(self, CacheCore cache not None, bint backward, bint with_key, bint with_value):
        cache.ready()
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
        cdef CacheCore cache = self.cache
        cdef Schema keys = cache._key_schema, values = cache._value_schema
        cdef bytes large = scratch(values.size)
        cdef char *data = scratch_data(large, small)
        cdef slot_t slot
        cdef bint valid
        if self.exhausted:
            raise StopIteration
        lock_acquire(&cache.lock)
        valid = self.version == cache.slab.header.version
        slot = self.slot
        if valid and slot != NIL:
            memcpy(key_bytes, slab_key(&cache.slab, slot), keys.size)
            memcpy(data, slab_value(&cache.slab, slot), values.size)
            self.left -= 1
            link = lru_link(&cache.slab.lru, slot)
            self.slot = link.next if self.backward else link.prev
        lock_release(&cache.lock)
        if not valid:
            raise RuntimeError("the cache changed during iteration; iterate over snapshot() instead")
        if slot == NIL:
            self.exhausted = True
            raise StopIteration
        if not self.with_value:
            return keys.decode(key_bytes)
        if not self.with_key:
            return values.decode(data)
        return keys.decode(key_bytes), values.decode(data)


def _before_fork():
    gate_close()


def _after_fork_in_parent():
    gate_open()


if hasattr(os, "register_at_fork"):
    if gate_install() != 0:
        raise MemoryError("cannot install a handler for fork()")
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
