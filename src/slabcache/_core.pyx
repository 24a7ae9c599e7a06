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

from slabcache.arena.header cimport CAPACITY_MAX, NIL, arena_destroy, header_t, shape_t, slot_t
from slabcache._base cimport (
    BATCH_ROWS,
    SCRATCH_SIZE,
    Evicted,
    SlabBase,
    acquire,
    encode_key,
    evicted_rows,
    key_t,
    new_arena,
    new_evicted,
    release,
    scratch,
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

from slabcache.arguments import whole

cnp.import_array()

cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char *where) except -1
    void Py_LeaveRecursiveCall()

cdef object MISSING = object()


cdef inline bint take_value(CacheCore self, const key_t *key, look_up_t how, char *data) noexcept:
    """Copy the value of `key` to `data`; whether there is one."""
    cdef slab_t *slab = acquire(self, key.hash)
    cdef slot_t slot = table_find(&slab.table, key.hash, key.packed)
    if how == LOOK_UP_GET:
        slab_count_look_up(slab, slot)
    if slot != NIL:
        native_copy(data, slab_value(slab, slot), slab.header.value_size)
        if how == LOOK_UP_POP:
            slab_erase(slab, key.hash, slot)
    release(self)
    return slot != NIL


cdef inline bint see_value(
    CacheCore self, const key_t *key, look_up_t how, char *data, seen_t *seen
) noexcept:
    """Copy the value of `key` to `data`, before its object is made; whether there is one. A miss of `get` is
    counted."""
    cdef slab_t *slab = acquire(self, key.hash)
    seen.slot = table_find(&slab.table, key.hash, key.packed)
    seen.version = slab.header.version
    if seen.slot != NIL:
        native_copy(data, slab_value(slab, seen.slot), self._value_schema.size)
    elif how == LOOK_UP_GET:
        slab_count_look_up(slab, NIL)
    release(self)
    return seen.slot != NIL


cdef inline bint is_as_seen(slab_t *slab, const key_t *key, const char *data, seen_t *seen) noexcept:
    """Whether an entry is still what it was; `seen.slot` is where. With the lock held, before a change."""
    if slab.header.version != seen.version:
        seen.slot = table_find(&slab.table, key.hash, key.packed)
        return seen.slot != NIL and native_equal(slab_value(slab, seen.slot), data, slab.header.value_size)
    return True


cdef inline bint use_value(
    CacheCore self, const key_t *key, look_up_t how, const char *data, seen_t *seen
) noexcept:
    """Count, move or delete the entry that was seen; False, and nothing done, when it is another by now."""
    cdef slab_t *slab = acquire(self, key.hash)
    cdef bint same = is_as_seen(slab, key, data, seen)
    if same and how == LOOK_UP_GET:
        slab_count_look_up(slab, seen.slot)
    elif same and how == LOOK_UP_POP:
        slab_erase(slab, key.hash, seen.slot)
    release(self)
    return same


cdef inline bint hit_value(CacheCore self, const key_t *key, char *data, hit_t *hit) noexcept:
    """Copy the value of `key` to `data` as `get` does, and take note of where its entry was."""
    cdef slab_t *slab = acquire(self, key.hash)
    cdef slot_t slot = table_find(&slab.table, key.hash, key.packed)
    if slot != NIL:
        hit.newer = lru_link(&slab.lru, slot).prev
        native_copy(data, slab_value(slab, slot), slab.header.value_size)
    slab_count_look_up(slab, slot)
    hit.slot = slot
    hit.version = slab.header.version
    release(self)
    return slot != NIL


cdef void take_back(CacheCore self, const key_t *key, const hit_t *hit) noexcept:
    """There is no memory for the object of a hit: it was none, unless others have come since."""
    cdef slab_t *slab = acquire(self, key.hash)
    if slab.header.version == hit.version and slab.header.counters.hits > self.base.hits:
        lru_move_behind(&slab.lru, hit.slot, hit.newer)
        slab.header.version += 1
        slab.header.counters.hits -= 1
    release(self)


cdef inline object hit_scalar(CacheCore self, const key_t *key, object missing):
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
            take_back(self, key, &hit)
    return value


cdef object look_up_scalar(CacheCore self, const key_t *key, look_up_t how, object missing):
    """`look_up` where values are no records. A function of its own: it costs the others nothing."""
    cdef char small[SCRATCH_SIZE]
    cdef char *data
    cdef bytes _large = scratch(self._value_schema.size, small, &data)
    cdef seen_t seen
    while see_value(self, key, how, data, &seen):
        value = self._value_schema.decode_field(0, data)
        if use_value(self, key, how, data, &seen):
            return value
    return missing


cdef inline object look_up(CacheCore self, object key, look_up_t how, object missing):
    """The value of `key`, or `missing`."""
    cdef key_t encoded
    cdef Record record
    encode_key(self, key, &encoded)
    # The result is made before anything is changed: that may fail, and nothing may be allocated while the
    # lock is held. A record can be made empty.
    if not self._value_schema.is_record:
        if how == LOOK_UP_GET and self._value_schema.size <= SCRATCH_SIZE:
            return hit_scalar(self, &encoded, missing)
        return look_up_scalar(self, &encoded, how, missing)
    record = record_new(self._value_schema)
    return record if take_value(self, &encoded, how, record_data(record)) else missing


cdef class CacheCore(SlabBase):
    """The typed LRU cache below `SlabCache`: everything that touches the arena."""

    def __init__(self, capacity, key, value, on_evict):
        cdef uint64_t entries = whole("capacity", capacity, 1, CAPACITY_MAX)
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
        cdef key_t encoded
        cdef slab_t *slab
        cdef slot_t slot
        encode_key(self, key, &encoded)
        slab = acquire(self, encoded.hash)
        slot = table_find(&slab.table, encoded.hash, encoded.packed)
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
        cdef key_t encoded
        cdef slab_t *slab
        cdef slot_t slot
        encode_key(self, key, &encoded)
        slab = acquire(self, encoded.hash)
        slot = table_find(&slab.table, encoded.hash, encoded.packed)
        if slot != NIL:
            slab_touch(slab, slot)
        release(self)
        return slot != NIL

    # ---- scalar calls: writes --------------------------------------------------------------------------

    cdef int put(self, const key_t *key, const char *value) except -1:
        cdef Evicted evicted = self.room_for_evicted()
        cdef slab_t *slab = acquire(self, key.hash)
        slab_put(slab, key.hash, key.packed, value, evicted_rows(evicted))
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
        cdef key_t encoded
        cdef char small[SCRATCH_SIZE]
        cdef char *data
        cdef bytes _large
        encode_key(self, key, &encoded)
        _large = scratch(self._value_schema.size, small, &data)
        schema_encode(self._value_schema, value, data)
        self.put(&encoded, data)

    def __delitem__(self, key):
        cdef key_t encoded
        cdef slab_t *slab
        cdef slot_t slot
        encode_key(self, key, &encoded)
        slab = acquire(self, encoded.hash)
        slot = table_find(&slab.table, encoded.hash, encoded.packed)
        if slot != NIL:
            slab_erase(slab, encoded.hash, slot)
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
        cdef key_t encoded
        cdef char small[SCRATCH_SIZE]
        cdef char *data
        cdef bytes _large
        cdef seen_t seen
        self.ready()
        _large = scratch(self._value_schema.size, small, &data)
        while True:
            lock_acquire(&self.lock)
            seen.slot = lru_least_recent(&self.slab.lru)
            if seen.slot != NIL:
                memcpy(encoded.packed, slab_key(&self.slab, seen.slot), self._key_schema.size)
                memcpy(data, slab_value(&self.slab, seen.slot), self._value_schema.size)
                encoded.hash = slab_hash(&self.slab, encoded.packed)
                seen.version = self.slab.header.version
            release(self)
            if seen.slot == NIL:
                raise KeyError("the cache is empty")
            item = self._key_schema.decode(encoded.packed), self._value_schema.decode(data)
            if self.erase_least_recent(&encoded, data, &seen):
                return item

    cdef bint erase_least_recent(self, const key_t *key, const char *data, seen_t *seen) noexcept:
        """Delete the entry that was seen; False, and nothing done, when another is the least recent now."""
        cdef slab_t *slab = acquire(self, key.hash)
        cdef bint same = is_as_seen(slab, key, data, seen) and lru_least_recent(&slab.lru) == seen.slot
        if same:
            slab_erase(slab, key.hash, seen.slot)
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
        cdef key_t encoded
        cdef char small[SCRATCH_SIZE]
        cdef Schema schema = self._value_schema
        cdef char *data
        cdef bytes _large = scratch(schema.size, small, &data)
        cdef Evicted evicted
        cdef seen_t seen
        cdef slab_t *slab
        cdef bint absent
        encode_key(self, key, &encoded)
        while True:
            while see_value(self, &encoded, LOOK_UP_PEEK, data, &seen):
                value = schema.decode(data)
                if use_value(self, &encoded, LOOK_UP_GET, data, &seen):
                    return value
            schema.encode(default, data)
            value = schema.decode(data)
            evicted = self.room_for_evicted()
            slab = acquire(self, encoded.hash)
            absent = table_find(&slab.table, encoded.hash, encoded.packed) == NIL
            if absent:          # or another thread was faster, or the encoding of the default
                slab_count_look_up(slab, NIL)
                slab_insert(slab, encoded.hash, encoded.packed, data, evicted_rows(evicted), True)
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
        cdef key_t encoded
        cdef char result[8]
        cdef delta_t delta
        cdef bint fits = True, done = False
        cdef seen_t seen
        cdef Py_ssize_t position
        cdef field_t *spec
        cdef slab_t *slab
        encode_key(self, key, &encoded)
        position = self._value_schema.number_position(field)
        self._value_schema.encode_delta(position, by, &delta)
        spec = &self._value_schema.fields[position]
        while not done:
            slab = acquire(self, encoded.hash)
            seen.slot = table_find(&slab.table, encoded.hash, encoded.packed)
            seen.version = slab.header.version
            if seen.slot != NIL:
                memcpy(result, slab_value(slab, seen.slot) + spec.offset, spec.size)
                fits = field_add(spec, result, &delta)
            release(self)
            if seen.slot == NIL:
                raise KeyError(key)
            if not fits:
                raise OverflowError(
                    f"{self._value_schema.label(position)}: the sum with {by} is out of range"
                )
            value = self._value_schema.decode_field(position, result)
            done = self.increment_seen(&encoded, spec, &delta, result, &seen)
        return value

    cdef bint increment_seen(
        self, const key_t *key, const field_t *field, const delta_t *delta, const char *expected, seen_t *seen
    ) noexcept:
        """Add to a field of the entry that was seen; False, and nothing done, when the sum is another now."""
        cdef char result[8]
        cdef char *target
        cdef bint same = True
        cdef slab_t *slab = acquire(self, key.hash)
        if slab.header.version != seen.version:
            seen.slot = table_find(&slab.table, key.hash, key.packed)
        if seen.slot != NIL:
            target = slab_value(slab, seen.slot) + field.offset
            memcpy(result, target, field.size)
            same = field_add(field, result, delta) and native_equal(result, expected, field.size)
            if same:
                memcpy(target, result, field.size)
                slab_updated(slab, seen.slot)
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
        cdef key_t encoded
        cdef Schema schema = self._value_schema
        cdef Py_ssize_t position
        cdef field_t *field
        cdef slab_t *slab
        cdef slot_t slot
        cdef bytes data_bytes, chosen_bytes
        encode_key(self, key, &encoded)
        chosen_bytes, data_bytes = schema.encode_fields(fields)
        cdef const char *chosen = PyBytes_AS_STRING(chosen_bytes)
        cdef const char *data = PyBytes_AS_STRING(data_bytes)
        slab = acquire(self, encoded.hash)
        slot = table_find(&slab.table, encoded.hash, encoded.packed)
        if slot != NIL:
            for position in range(schema.count):
                if chosen[position]:
                    field = &schema.fields[position]
                    memcpy(slab_value(slab, slot) + field.offset, data + field.offset, field.size)
            slab_updated(slab, slot)
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
        cdef uint64_t entries = whole("capacity", capacity, 1, CAPACITY_MAX)
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
