"""The cache as an extension type: argument checks, locking, status codes to exceptions.

Every method has the same three steps. Arguments are encoded to packed bytes, which may run the
caller's code and allocate; then, with the lock held, functions of `arena/slab.pxd` do the work, which does
neither; then, with the lock released, results are decoded, errors raised and `on_evict` called.
`_batch.pyx` adds the calls that take many keys, `slabcache.SlabCache` the parts of a mapping that are
plain Python.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from slabcache.arena.header cimport KEY_SIZE_MAX, NIL, arena_destroy, header_t, shape_t, slot_t
from slabcache._base cimport (
    BATCH_ROWS,
    SCRATCH_SIZE,
    Evicted,
    SlabBase,
    checked_capacity,
    evicted_rows,
    new_arena,
    new_evicted,
    release,
    scratch,
    scratch_data,
)
from slabcache.arena.field cimport delta_t, field_add, field_t
from slabcache.machine.lock cimport lock_acquire
from slabcache.arena.lru cimport lru_least_recent, lru_link, lru_move_behind
from slabcache.machine.integer cimport integer_fill, integer_room
from slabcache.machine.native cimport native_copy, native_equal
from slabcache.codec.record cimport Record, Schema, record_data, record_new, schema_encode
from slabcache.arena.slab cimport (
    slab_attach,
    slab_clear,
    slab_count_look_up,
    slab_erase,
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
from slabcache.arena.table cimport table_find

cnp.import_array()

cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char *where) except -1
    void Py_LeaveRecursiveCall()

cdef object MISSING = object()


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
        native_copy(data, slab_value(&self.slab, slot), self.slab.header.value_size)
        if how == LOOK_UP_POP:
            slab_erase(&self.slab, hash, slot)
    release(self)
    return slot != NIL


cdef inline bint see_value(
    CacheCore self, const char *key, look_up_t how, char *data, seen_t *seen
) noexcept:
    """Copy the value of `key` to `data`, before its object is made; whether there is one. A miss of `get` is
    counted."""
    lock_acquire(&self.lock)
    seen.hash = slab_hash(&self.slab, key)
    seen.slot = table_find(&self.slab.table, seen.hash, key)
    seen.version = self.slab.header.version
    if seen.slot != NIL:
        native_copy(data, slab_value(&self.slab, seen.slot), self._value_schema.size)
    elif how == LOOK_UP_GET:
        slab_count_look_up(&self.slab, NIL)
    release(self)
    return seen.slot != NIL


cdef inline bint is_as_seen(CacheCore self, const char *key, const char *data, seen_t *seen) noexcept:
    """Whether an entry is still what it was; `seen.slot` is where. With the lock held, before a change."""
    if self.slab.header.version != seen.version:
        seen.slot = table_find(&self.slab.table, seen.hash, key)
        return seen.slot != NIL and native_equal(
            slab_value(&self.slab, seen.slot), data, self._value_schema.size
        )
    return True


cdef inline bint use_value(
    CacheCore self, const char *key, look_up_t how, const char *data, seen_t *seen
) noexcept:
    """Count, move or delete the entry that was seen; False, and nothing done, when it is another by now."""
    cdef bint same
    lock_acquire(&self.lock)
    same = is_as_seen(self, key, data, seen)
    if same and how == LOOK_UP_GET:
        slab_count_look_up(&self.slab, seen.slot)
    elif same and how == LOOK_UP_POP:
        slab_erase(&self.slab, seen.hash, seen.slot)
    release(self)
    return same


cdef inline bint hit_value(CacheCore self, const char *key, char *data, hit_t *hit) noexcept:
    """Copy the value of `key` to `data` as `get` does, and take note of where its entry was."""
    cdef slot_t slot
    lock_acquire(&self.lock)
    slot = slab_find(&self.slab, key)
    if slot != NIL:
        hit.newer = lru_link(&self.slab.lru, slot).prev
        native_copy(data, slab_value(&self.slab, slot), self.slab.header.value_size)
    slab_count_look_up(&self.slab, slot)
    hit.slot = slot
    hit.version = self.slab.header.version
    release(self)
    return slot != NIL


cdef void take_back(CacheCore self, const hit_t *hit) noexcept:
    """There is no memory for the object of a hit: it was none, unless others have come since."""
    lock_acquire(&self.lock)
    if self.slab.header.version == hit.version and self.slab.header.counters.hits > self.base.hits:
        lru_move_behind(&self.slab.lru, hit.slot, hit.newer)
        self.slab.header.version += 1
        self.slab.header.counters.hits -= 1
    release(self)


cdef inline object hit_scalar(CacheCore self, const char *key, object missing):
    """`get` of a value that is no record and not large: what all do, in the fewest steps."""
    cdef char data[SCRATCH_SIZE]
    cdef bint failed = True
    cdef hit_t hit
    if not hit_value(self, key, data, &hit):
        return missing
    try:
        value = self._value_schema.decode_field(0, data)
        failed = False
    finally:
        if failed:
            take_back(self, &hit)
    return value


cdef object look_up_scalar(CacheCore self, const char *key, look_up_t how, object missing):
    """`look_up` where values are no records. A function of its own: it costs the others nothing."""
    cdef char small[SCRATCH_SIZE]
    cdef bytes large = scratch(self._value_schema.size)
    cdef char *data = scratch_data(large, small)
    cdef seen_t seen
    while see_value(self, key, how, data, &seen):
        value = self._value_schema.decode_field(0, data)
        if use_value(self, key, how, data, &seen):
            return value
    return missing


cdef inline object look_up(CacheCore self, object key, look_up_t how, object missing):
    """The value of `key`, or `missing`."""
    cdef char key_bytes[KEY_SIZE_MAX]
    cdef Record record
    schema_encode(self._key_schema, key, key_bytes)
    # The result is made before anything is changed: that may fail, and nothing may be allocated while the
    # lock is held. A record can be made empty.
    if not self._value_schema.is_record:
        if how == LOOK_UP_GET and self._value_schema.size <= SCRATCH_SIZE:
            return hit_scalar(self, key_bytes, missing)
        return look_up_scalar(self, key_bytes, how, missing)
    record = record_new(self._value_schema)
    return record if take_value(self, key_bytes, how, record_data(record)) else missing


cdef class CacheCore(SlabBase):
    """The typed LRU cache below `SlabCache`: everything that touches the arena."""

    def __init__(self, capacity, key, value, on_evict):
        cdef uint64_t entries = checked_capacity(capacity)
        cdef Schema key_schema = Schema(key, "key"), value_schema = Schema(value, "value")
        cdef shape_t shape = shape_t(entries, 0, key_schema.size, value_schema.size, 0, 0)
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict must be callable, not {type(on_evict).__name__}")
        self.draw_seed()
        self.adopt(new_arena(&shape, &self.seed), key_schema, value_schema)
        self.on_evict = on_evict

    cdef uint64_t object_size(self) noexcept:
        return sizeof(CacheCore)

    # ---- scalar calls: look-ups ------------------------------------------------------------------------

    def __getitem__(self, key):
        value = look_up(self, key, LOOK_UP_GET, MISSING)
        if value is MISSING:
            return self.__missing__(key)
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
        cdef Evicted evicted = self.room_for_evicted()
        lock_acquire(&self.lock)
        slab_put(&self.slab, slab_hash(&self.slab, key), key, value, evicted_rows(evicted))
        release(self)
        return self.report(evicted)

    cdef Evicted room_for_evicted(self):
        """For the one row that a scalar call may evict; None when nobody wants it."""
        if self.on_evict is None:
            return None
        return new_evicted(self._key_schema, self._value_schema, 1)

    cdef int report(self, Evicted evicted) except -1:
        """Hand evicted rows, if there are any, to the user; no lock is held."""
        if evicted is None or evicted.rows.count == 0:
            return 0
        evicted.finish()
        Py_EnterRecursiveCall(" in on_evict")   # a callback written in C would recurse without a limit
        try:
            self.on_evict(evicted.keys, evicted.values)
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
        cdef seen_t seen
        self.ready()
        large = scratch(self._value_schema.size)
        data = scratch_data(large, small)
        while True:
            lock_acquire(&self.lock)
            seen.slot = lru_least_recent(&self.slab.lru)
            if seen.slot != NIL:
                memcpy(key_bytes, slab_key(&self.slab, seen.slot), self._key_schema.size)
                memcpy(data, slab_value(&self.slab, seen.slot), self._value_schema.size)
                seen.hash = slab_hash(&self.slab, key_bytes)
                seen.version = self.slab.header.version
            release(self)
            if seen.slot == NIL:
                raise KeyError("the cache is empty")
            item = self._key_schema.decode(key_bytes), self._value_schema.decode(data)
            if self.erase_least_recent(key_bytes, data, &seen):
                return item

    cdef bint erase_least_recent(self, const char *key, const char *data, seen_t *seen) noexcept:
        """Delete the entry that was seen; False, and nothing done, when another is the least recent now."""
        cdef bint same
        lock_acquire(&self.lock)
        same = is_as_seen(self, key, data, seen) and lru_least_recent(&self.slab.lru) == seen.slot
        if same:
            slab_erase(&self.slab, seen.hash, seen.slot)
        release(self)
        return same

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
        cdef Evicted evicted
        cdef seen_t seen
        cdef bint absent
        schema_encode(self._key_schema, key, key_bytes)
        while True:
            while see_value(self, key_bytes, LOOK_UP_PEEK, data, &seen):
                value = schema.decode(data)
                if use_value(self, key_bytes, LOOK_UP_GET, data, &seen):
                    return value
            schema.encode(default, data)
            value = schema.decode(data)
            evicted = self.room_for_evicted()
            lock_acquire(&self.lock)
            absent = table_find(&self.slab.table, seen.hash, key_bytes) == NIL
            if absent:          # or another thread was faster, or the encoding of the default
                slab_count_look_up(&self.slab, NIL)
                slab_insert(&self.slab, seen.hash, key_bytes, data, evicted_rows(evicted), True)
            release(self)
            if absent:
                self.report(evicted)
                return value

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
        cdef bint fits = True, done = False
        cdef seen_t seen
        cdef Py_ssize_t position
        cdef field_t *spec
        schema_encode(self._key_schema, key, key_bytes)
        position = self._value_schema.number_position(field)
        self._value_schema.encode_delta(position, by, &delta)
        spec = &self._value_schema.fields[position]
        while not done:
            lock_acquire(&self.lock)
            seen.hash = slab_hash(&self.slab, key_bytes)
            seen.slot = table_find(&self.slab.table, seen.hash, key_bytes)
            seen.version = self.slab.header.version
            if seen.slot != NIL:
                memcpy(result, slab_value(&self.slab, seen.slot) + spec.offset, spec.size)
                fits = field_add(spec, result, &delta)
            release(self)
            if seen.slot == NIL:
                raise KeyError(key)
            if not fits:
                raise OverflowError(
                    f"{self._value_schema.label(position)}: the sum with {by} is out of range"
                )
            value = self._value_schema.decode_field(position, result)
            done = self.increment_seen(key_bytes, spec, &delta, result, &seen)
        return value

    cdef bint increment_seen(
        self, const char *key, const field_t *field, const delta_t *delta, const char *expected, seen_t *seen
    ) noexcept:
        """Add to a field of the entry that was seen; False, and nothing done, when the sum is another now."""
        cdef char result[8]
        cdef char *target
        cdef bint same = True
        lock_acquire(&self.lock)
        if self.slab.header.version != seen.version:
            seen.slot = table_find(&self.slab.table, seen.hash, key)
        if seen.slot != NIL:
            target = slab_value(&self.slab, seen.slot) + field.offset
            memcpy(result, target, field.size)
            same = field_add(field, result, delta) and native_equal(result, expected, field.size)
            if same:
                memcpy(target, result, field.size)
                slab_updated(&self.slab, seen.slot)
        release(self)
        return same and seen.slot != NIL

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
        cdef Schema schema = self._value_schema
        cdef Py_ssize_t position
        cdef field_t *field
        cdef slot_t slot
        cdef bytes data_bytes, chosen_bytes
        schema_encode(self._key_schema, key, key_bytes)
        chosen_bytes, data_bytes = schema.encode_fields(fields)
        cdef const char *chosen = PyBytes_AS_STRING(chosen_bytes)
        cdef const char *data = PyBytes_AS_STRING(data_bytes)
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
        cdef Evicted evicted = None
        cdef shape_t shape
        cdef header_t *header
        cdef slab_t target
        cdef Py_ssize_t room = 0, surplus
        cdef object result = integer_room(<uint64_t>-1)
        cdef bint fits = False
        cdef PyThreadState *state
        self.ready()
        shape = shape_t(entries, 0, self._key_schema.size, self._value_schema.size, 0, 0)
        header = new_arena(&shape, &self.seed)
        slab_attach(&target, header)
        try:
            while not fits:     # as in _export
                if self.on_evict is not None:
                    room = max(<Py_ssize_t>self.size() - <Py_ssize_t>entries, 0)
                    evicted = new_evicted(self._key_schema, self._value_schema, room)
                state = self.enter(BATCH_ROWS)
                surplus = max(<Py_ssize_t>self.slab.header.size - <Py_ssize_t>entries, 0)
                fits = evicted is None or surplus <= room
                if fits:
                    slab_move(&target, &self.slab, evicted_rows(evicted))
                    header = self.slab.header
                    self.slab = target
                self.leave(state)
        finally:
            arena_destroy(header)       # the old arena, or after an error the new one
        self.report(evicted)
        return integer_fill(result, surplus)
