"""The calls of a cache in front of a store, as far as they need not wait: for the store, or for room.

Steps are those of `_core.pyx` and `_batch.pyx`. What must wait is told to the caller, `WriteBehindCache`,
with nothing changed: a row is not in memory (MISSING), or all slots are unsaved (FULL). It waits, blocking or
in an event loop, and asks again.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pystate cimport PyThreadState
from libc.stdint cimport int64_t, uint64_t

from slabcache.arena.header cimport NIL, slot_t
from slabcache._base cimport (
    BATCH_ROWS,
    SCRATCH_SIZE,
    Evicted,
    empty_rows,
    acquire,
    encode_key,
    evicted_rows,
    key_t,
    new_evicted,
    release,
    scratch,
)
from slabcache._batch cimport column_of
from slabcache.behind.arena.slab cimport (
    OUTCOME_ABSENT,
    OUTCOME_FOUND,
    OUTCOME_FULL,
    OUTCOME_UNKNOWN,
    STORED_SEEN,
    STORED_UNKNOWN,
    behind_delete,
    behind_edit,
    behind_put,
    behind_read,
    edit_apply,
    edit_t,
    outcome_t,
    row_t,
)
from slabcache.behind.drain cimport DrainCore
from slabcache.arena.field cimport delta_t
from slabcache.machine.integer cimport integer_fill, integer_room
from slabcache.machine.lock cimport lock_acquire, lock_release
from slabcache.arena.lookahead cimport column_t
from slabcache.arena.lru cimport lru_least_recent
from slabcache.machine.native cimport native_copy, native_equal, native_now
from slabcache.codec.record cimport Record, Schema, record_data, record_new, schema_encode
from slabcache.behind.request cimport PURPOSE_READ, Request
from slabcache.behind.arena.room cimport (
    room_ask,
    room_expire,
    room_for_one,
    room_give_up,
    room_is_denied,
    room_let_go,
    room_t,
)
from slabcache.arena.slab cimport slab_hash, slab_key, slab_value
from slabcache.arena.table cimport table_find
from slabcache.behind.arena.batch cimport (
    STATUS_DONE,
    STATUS_FULL,
    STATUS_MISSING,
    STATUS_OTHER,
    only_t,
    request_t,
    through_delete,
    through_edit,
    through_invalidate,
    through_keep,
    through_missing,
    through_only_row,
    through_prepare,
    through_prepare_only,
    through_put,
    through_put_off,
    through_read,
    through_room_for,
    through_scan,
)
from slabcache.behind.arena.unsaved cimport behind_outdate_all

import numpy as np

from slabcache.errors import SumOverflowError
from slabcache.codec.rows import from_rows

cnp.import_array()

DONE, MISSING, FULL, OTHER = STATUS_DONE, STATUS_MISSING, STATUS_FULL, STATUS_OTHER     # of a change
ABSENT = object()               # a key that is neither in memory nor in the store
UNKNOWN = object()              # only the store knows
NO_ROOM = object()              # a write has to wait


cdef inline const char *default_of(WriteBehindCore self) noexcept:
    return NULL if self.default is None else PyBytes_AS_STRING(self.default)


cdef inline slot_t find(WriteBehindCore self, const key_t *key) noexcept:
    """The slot of a key, or NIL. With the lock held."""
    return table_find(&self.slab.table, key.hash, key.packed)


cdef inline row_t row_of(const key_t *key, char *value, const char *default) noexcept:
    """A key of which nothing is known but what is in memory; `value` is room for one."""
    cdef row_t row
    row.hash = key.hash
    row.key = key.packed
    row.value = value
    row.stored = STORED_UNKNOWN
    row.as_of = 0
    row.default = default
    return row


cdef class WriteBehindCore(DrainCore):
    """What `WriteBehindCache` does in memory."""

    def _attach(self, bells, list kept not None):
        """There is a flusher now. None in the queue `bells` wakes it; the only item of `kept`, which is None,
        becomes the cache once its users have dropped it."""
        self.bells = bells
        self.kept = kept

    def _detach(self):
        """There is none."""
        self.bells = self.kept = None

    def __del__(self):
        """The last reference goes: the flusher, which knows whether rows are unsaved, keeps the cache for as
        long. No step of this runs Python code, so no signal handler gets in between, and the first needs no
        memory."""
        if self.closed or self.lock.forked or self.kept is None:
            return
        self.kept[0] = self
        try:
            self.bells.put(None)
        except MemoryError:             # the flusher looks by itself after a while
            pass

    cdef uint64_t object_size(self) noexcept:
        return sizeof(WriteBehindCore)

    cdef int ring_bell(self) except -1:
        """Wake the flusher if a call asked for it. No step of this runs Python code, so no signal handler
        gets in between."""
        if self.bells is not None and self.behind.unsaved.bell and not self.lock.forked:
            self.behind.unsaved.bell = False    # before: a batch may ring meanwhile, without the GIL
            try:
                self.bells.put(None)
            except MemoryError:
                self.behind.unsaved.bell = True     # the write has been made: the next call rings
        return 0

    # ---- one key ---------------------------------------------------------------------------------------

    def _attempt(self, key, bint counted, bint moves):
        """The value of a key, ABSENT, or UNKNOWN."""
        return self.attempt(key, counted, moves)

    cdef inline object attempt(self, object key, bint counted, bint moves):
        cdef key_t encoded
        cdef Record record
        cdef row_t row
        cdef outcome_t outcome
        if self.closed:
            self.usable()
        encode_key(self, key, &encoded)
        if not self._value_schema.is_record:
            return self.attempt_scalar(&encoded, counted, moves)
        record = record_new(self._value_schema)
        row = row_of(&encoded, record_data(record), default_of(self))
        acquire(self, encoded.hash)
        outcome = behind_read(&self.behind, find(self, &encoded), &row, counted, moves)
        release(self)
        if self.behind.unsaved.bell:
            self.ring_bell()
        if outcome == OUTCOME_UNKNOWN:
            return UNKNOWN
        if outcome == OUTCOME_ABSENT:
            return ABSENT
        return record

    cdef outcome_t see_row(
        self, const key_t *key, const row_t *row, bint counted, uint64_t *version
    ) noexcept:
        """Read one row, of which only a miss is `counted`, and the version of the cache at that."""
        cdef outcome_t outcome
        cdef slot_t slot
        acquire(self, key.hash)
        slot = find(self, key)
        outcome = behind_read(&self.behind, slot, row, False, False)
        if outcome == OUTCOME_ABSENT and counted:
            behind_read(&self.behind, slot, row, True, False)
        version[0] = self.slab.header.version
        release(self)
        return outcome

    cdef object attempt_scalar(self, const key_t *key, bint counted, bint moves):
        """`attempt` where values are no records: the object is made before anything is counted or moved."""
        cdef char small[SCRATCH_SIZE]
        cdef char *data
        cdef bytes _large = scratch(self._value_schema.size, small, &data)
        cdef row_t row = row_of(key, data, default_of(self))
        cdef uint64_t version
        cdef outcome_t outcome
        cdef bint done = False
        while not done:
            outcome = self.see_row(key, &row, counted, &version)
            if outcome != OUTCOME_FOUND:
                return ABSENT if outcome == OUTCOME_ABSENT else UNKNOWN
            value = self._value_schema.decode_field(0, data)
            done = not counted and not moves
            if not done:
                acquire(self, key.hash)
                # The flusher frees pending slots and tombstones that are saved: no change of the cache.
                done = version == self.slab.header.version and OUTCOME_FOUND == behind_read(
                    &self.behind, find(self, key), &row, counted, moves
                )
                release(self)
        if self.behind.unsaved.bell:
            self.ring_bell()
        return value

    def __getitem__(self, key):
        value = self.attempt(key, True, True)
        if value is UNKNOWN:
            value = self._read_one(key, True, True)
        if value is ABSENT:
            return self.__missing__(key)
        return value

    def get(self, key, default=None):
        """The value of `key`, from memory or the store, or the default of the cache, or else `default`."""
        value = self.attempt(key, True, True)
        if value is UNKNOWN:
            value = self._read_one(key, True, True)
        return default if value is ABSENT else value

    def peek(self, key, default=None):
        """What `get` returns, without counting it, changing the order or keeping what was loaded."""
        value = self.attempt(key, False, False)
        if value is UNKNOWN:
            value = self._read_one(key, False, False)
        return default if value is ABSENT else value

    def __contains__(self, key):
        value = self.attempt(key, False, False)
        if value is UNKNOWN:
            value = True if self.default is not None else self._read_one(key, False, False)
        return value is not ABSENT

    def touch(self, key):
        """Make the entry of `key` the most recent, loading it where need be; whether there is one."""
        value = self.attempt(key, False, True)
        if value is UNKNOWN:
            value = self._read_one(key, False, True)
        return value is not ABSENT

    def _attempt_put(self, key, value):
        """Write an entry; False, and nothing changed, when there is no room."""
        return self.attempt_put(key, value)

    cdef inline bint attempt_put(self, object key, object value) except -1:
        cdef key_t encoded
        cdef char small[SCRATCH_SIZE]
        cdef char *data
        cdef bytes _large
        cdef row_t row
        cdef slot_t slot
        cdef outcome_t outcome = OUTCOME_FULL
        if self.closed or self.lock.forked:
            self.writable()
        encode_key(self, key, &encoded)
        _large = scratch(self._value_schema.size, small, &data)
        schema_encode(self._value_schema, value, data)
        row = row_of(&encoded, NULL, NULL)
        self.lock_for_write()
        slot = find(self, &encoded)
        if not room_is_denied(&self.behind, 0, slot):
            outcome = behind_put(&self.behind, slot, &row, data, 0, NULL)
        release(self)
        if self.behind.unsaved.bell:
            self.ring_bell()
        return outcome != OUTCOME_FULL

    def __setitem__(self, key, value):
        if not self.attempt_put(key, value):
            self._put_one(key, value)

    def __delitem__(self, key):
        # Here, as the slot of a type is one for both: Python code for this one slows __setitem__ down.
        self._delete_one(key)

    def _attempt_increment(self, key, field, by):
        """The new value of a field, ABSENT, UNKNOWN, or NO_ROOM."""
        return self.attempt_increment(key, field, by)

    cdef inline object attempt_increment(self, object key, object field, object by):
        cdef key_t encoded
        cdef char small[SCRATCH_SIZE]
        cdef char *data
        cdef Schema schema = self._value_schema
        cdef bytes _large
        cdef delta_t delta
        cdef edit_t edit
        cdef row_t row
        cdef uint64_t version
        cdef slot_t slot
        cdef outcome_t outcome = OUTCOME_UNKNOWN
        cdef Py_ssize_t position
        if self.closed or self.lock.forked:
            self.writable()
        encode_key(self, key, &encoded)
        position = schema.number_position(field)
        schema.encode_delta(position, by, &delta)
        _large = scratch(schema.size, small, &data)
        edit.fields = &schema.fields[position]
        edit.delta = &delta
        row = row_of(&encoded, data, default_of(self))
        while True:             # the result is made first: that may fail
            self.lock_for_write()
            slot = find(self, &encoded)
            outcome = behind_read(&self.behind, slot, &row, False, False)
            version = self.slab.header.version
            release(self)
            if outcome != OUTCOME_FOUND:
                return ABSENT if outcome == OUTCOME_ABSENT else UNKNOWN
            if not edit_apply(&edit, data):
                raise OverflowError(f"{schema.label(position)}: the sum with {by} is out of range")
            value = schema.decode_field(position, data + schema.fields[position].offset)
            self.lock_for_write()
            # The flusher frees pending slots and tombstones that are saved, which is no change of the cache.
            if version != self.slab.header.version or slot != find(self, &encoded):
                release(self)
                continue
            outcome = OUTCOME_FULL
            if not room_is_denied(&self.behind, 0, slot):
                outcome = behind_edit(&self.behind, slot, &row, &edit, 0)
            release(self)
            break
        if self.behind.unsaved.bell:
            self.ring_bell()
        return NO_ROOM if outcome == OUTCOME_FULL else value

    def increment(self, key, field=None, by=1):
        """Add `by` to a numeric field of the entry, which is loaded where need be; its new value.

        Raises
        ------
        KeyError
            There is no row, and the cache has no default.
        OverflowError
            The sum does not fit the field; nothing is changed.
        """
        value = self.attempt_increment(key, field, by)
        if value is UNKNOWN or value is NO_ROOM:
            value = self._increment_one(key, field, by)
        if value is ABSENT:
            raise KeyError(key)
        return value

    # ---- many keys: reading ----------------------------------------------------------------------------

    def _read(self, Request request not None):
        """Run the rows of a reading batch; whether all have run. If not, rows are missing."""
        cdef request_t raw
        cdef PyThreadState *state
        cdef size_t done = request.done
        self.usable()
        raw = request.raw()
        state = self.enter(raw.rows)
        done = through_read(self.behind, raw, done, request.counted, request.moves)
        self.leave(state)
        self.ring_bell()
        request.done = done
        return done == raw.rows

    def _missing(self, Request request not None):
        """`(rows, keys, as_of)`: the numbers of the rows that only the store knows, their packed keys, and
        the number of the last write."""
        cdef cnp.ndarray missing
        cdef cnp.npy_intp room = len(request)
        cdef request_t raw
        cdef PyThreadState *state
        cdef size_t count
        cdef uint64_t as_of
        self.usable()
        request.loads += 1
        request.expect()
        if not request.owned:       # what is loaded must stay that of its key, whatever the caller does
            request.keys = (<object>request.keys).copy()
            request.owned = True
        missing = cnp.PyArray_EMPTY(1, &room, cnp.NPY_INT64, 0)
        raw = request.raw()
        state = self.enter(raw.rows)
        count = through_missing(self.behind, raw, request.done, <int64_t *>cnp.PyArray_DATA(missing))
        as_of = self.behind.unsaved.writes
        self.leave(state)
        rows = missing[:count]
        return rows, request.keys[rows], as_of

    def _keep(self, cnp.ndarray keys not None, values, found, as_of):
        """Create entries of packed rows that were loaded, unless they were written after write `as_of`."""
        cdef Request request = Request(self, keys, PURPOSE_READ, False, True)
        cdef request_t raw
        cdef PyThreadState *state
        self.usable()
        request.supply(np.arange(len(keys)), values, found, as_of, False)
        raw = request.raw()
        state = self.enter(raw.rows)
        through_keep(self.behind, raw)
        self.leave(state)
        self.ring_bell()

    # ---- room ------------------------------------------------------------------------------------------

    def _ask_for_room(self, Request request not None):
        """Have what a change needs kept for it, unless one that has waited longer needs room. For how many
        seconds room is kept for another, as it is now; None where it is not."""
        cdef uint64_t until = 0
        self.usable()
        lock_acquire(&self.lock)
        request.ticket = room_ask(&self.behind, request.ticket, request.room.needed)
        if self.behind.unsaved.keeper != request.ticket:
            until = self.behind.unsaved.kept_until if self.behind.unsaved.kept else 0
        lock_release(&self.lock)
        return None if until == 0 else max(<int64_t>(until - <uint64_t>native_now()), 0) / 1e9

    def _release_room(self, Request request not None):
        """There is no next attempt of a change; whether room was kept for it, and is for nobody now."""
        cdef bint is_kept
        if not request.ticket:
            return False
        self.ready()
        lock_acquire(&self.lock)
        room_give_up(&self.behind, request.ticket)
        room_expire(&self.behind)
        is_kept = self.behind.unsaved.kept != 0
        lock_release(&self.lock)
        return not is_kept

    def _release_all_room(self):
        """For one who may not wait: what is kept for others is there for all."""
        self.ready()
        lock_acquire(&self.lock)
        room_let_go(&self.behind)
        lock_release(&self.lock)

    # ---- many keys: changing ---------------------------------------------------------------------------

    def _put(
        self, cnp.ndarray keys not None, cnp.ndarray values not None, Request request, bint return_evicted
    ):
        """Write packed rows. How many were evicted, or they themselves; None, and nothing changed, when there
        is no room. `request`, of these keys, is None for the first attempt: mostly it is the last."""
        cdef cnp.npy_intp rows = cnp.PyArray_DIM(keys, 0)
        cdef column_t key_column, value_column
        cdef Evicted evicted = None
        cdef request_t raw
        cdef PyThreadState *state
        cdef uint64_t count = 0
        cdef size_t done = 0
        cdef room_t room
        self.writable()
        if return_evicted:
            evicted = new_evicted(self._key_schema, self._value_schema, rows)
        result = integer_room(rows)
        key_column = column_of(keys, self._key_schema.size, rows)
        value_column = column_of(values, self._value_schema.size, rows)
        raw.keys = key_column
        raw.rows = rows
        raw.first = NULL if request is None else request.raw().first
        raw.ticket = 0 if request is None else request.ticket
        raw.creates = True
        state = self.enter_for_write(rows)
        room = through_room_for(&self.behind, &raw)
        if room.fits:
            count = self.slab.header.counters.evictions
            done = through_put(
                self.behind, key_column, value_column, rows, native_now(), evicted_rows(evicted)
            )
            count = self.slab.header.counters.evictions - count
        self.leave(state)
        self.ring_bell()
        if not room.fits:
            if request is not None:
                request.room = room
            return None
        if done < <size_t>rows:
            raise RuntimeError(
                f"keys: another thread has changed them during the call, and {rows - done} rows found no room"
            )
        return evicted.finish() if return_evicted else integer_fill(result, count)

    def _increment(
        self,
        Request request not None,
        Py_ssize_t position,
        cnp.ndarray deltas not None,
        cnp.ndarray results not None,
    ):
        """Add to a field of each row; the status, with nothing changed unless it is DONE. `request.done` says
        how many rows are done, `results`, of the dtype that the user gave the field, has the sums."""
        cdef Schema schema = self._value_schema
        schema.label(position)      # refuses a position that there is not
        cdef cnp.npy_intp rows = len(request)
        cdef cnp.ndarray missing = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
        cdef column_t delta_column = column_of(deltas, sizeof(delta_t), cnp.PyArray_DIM(deltas, 0))
        cdef column_t result_column = column_of(results, schema.fields[position].size, rows)
        cdef int64_t *missing_data = <int64_t *>cnp.PyArray_DATA(missing)
        cdef edit_t edit
        cdef request_t raw
        cdef PyThreadState *state
        cdef bint swapped
        cdef int status
        self.writable()
        if not cnp.PyArray_IS_C_CONTIGUOUS(results):
            raise ValueError("results: not contiguous")
        edit.fields = &schema.fields[position]
        if cnp.PyArray_DIM(deltas, 0) == 1:
            delta_column.stride = 0
        raw = request.raw_of(self)
        swapped = cnp.PyArray_ISBYTESWAPPED(results)
        state = self.enter_for_write(rows)
        status = through_prepare(&self.behind, &raw, missing_data, &request.room)
        if status == STATUS_DONE:
            request.done = through_edit(
                self.behind, raw, edit, delta_column, result_column, native_now()
            )
        self.leave(state)
        self.ring_bell()
        if swapped and status == STATUS_DONE:
            cnp.PyArray_Byteswap(results, True)
        return status

    def _increment_only(self, Request request not None, Py_ssize_t position, cnp.ndarray deltas not None):
        """`_increment` of the only row, whose sum is `request.result`: made before the row is changed, as
        afterwards there might be no memory for it."""
        cdef Schema schema = self._value_schema
        schema.label(position)
        cdef edit_t edit
        cdef request_t raw
        cdef only_t only
        cdef bytes expected = None, found, summed
        cdef int status
        if len(request) != 1 or cnp.PyArray_NBYTES(deltas) != sizeof(delta_t):
            raise ValueError("one row, and a delta for it")
        self.writable()
        edit.fields = &schema.fields[position]
        edit.delta = <const delta_t *>cnp.PyArray_DATA(deltas)
        raw = request.raw_of(self)
        found = PyBytes_FromStringAndSize(NULL, schema.size)
        while True:
            self.lock_for_write()
            status = through_prepare_only(&self.behind, &raw, &request.room, &only)
            if status == STATUS_DONE:
                if only.value is NULL or (
                    expected is not None
                    and native_equal(only.value, PyBytes_AS_STRING(expected), schema.size)
                ):
                    raw.found[0] = OUTCOME_FOUND == behind_edit(
                        &self.behind, only.slot, &only.row, &edit, native_now()
                    )
                else:
                    native_copy(PyBytes_AS_STRING(found), only.value, schema.size)
                    status = through_put_off(&raw, &only)
            release(self)
            if status != STATUS_OTHER:
                self.ring_bell()
                return status
            summed = PyBytes_FromStringAndSize(NULL, schema.size)   # with NULL it is none that others have
            native_copy(PyBytes_AS_STRING(summed), PyBytes_AS_STRING(found), schema.size)
            if not edit_apply(&edit, PyBytes_AS_STRING(summed)):
                raise SumOverflowError(schema.label(position), 0)
            request.result = schema.decode_field(
                position, PyBytes_AS_STRING(summed) + schema.fields[position].offset
            )
            expected, found = found, PyBytes_FromStringAndSize(NULL, schema.size)

    def _update_fields(self, Request request not None, bytes chosen not None, bytes data not None):
        """Overwrite the chosen fields of one row; the status."""
        cdef Schema schema = self._value_schema
        cdef int64_t missing
        cdef edit_t edit
        cdef request_t raw
        cdef row_t row
        cdef int status
        self.writable()
        edit.fields = schema.fields
        edit.delta = NULL
        edit.data = PyBytes_AS_STRING(data)
        edit.chosen = PyBytes_AS_STRING(chosen)
        edit.count = schema.count
        if len(request) != 1 or len(data) != schema.size or len(chosen) != schema.count:
            raise ValueError("one row, a flag for each field, and a value")
        raw = request.raw_of(self)
        self.lock_for_write()
        status = through_prepare(&self.behind, &raw, &missing, &request.room)
        if status == STATUS_DONE:
            row = through_only_row(&self.behind, &raw)
            raw.found[0] = OUTCOME_FOUND == behind_edit(
                &self.behind, table_find(&self.slab.table, row.hash, row.key), &row, &edit, native_now()
            )
        release(self)
        self.ring_bell()
        return status

    def _set_default(self, Request request not None, bytes value):
        """Read one row or, where it is absent, write `value` unless that is None; the status. It counts as a
        look-up."""
        cdef int64_t missing
        cdef request_t raw
        cdef row_t row
        cdef int status
        cdef slot_t slot
        cdef outcome_t outcome
        self.writable()
        if len(request) != 1 or (value is not None and len(value) != self._value_schema.size):
            raise ValueError("one row, and a value of its size")
        raw = request.raw_of(self)
        self.lock_for_write()
        status = through_prepare(&self.behind, &raw, &missing, &request.room)
        if status != STATUS_MISSING:
            row = through_only_row(&self.behind, &raw)
            if row.stored == STORED_SEEN:
                row.stored = STORED_UNKNOWN     # it counts as a hit
            slot = table_find(&self.slab.table, row.hash, row.key)
            outcome = behind_read(&self.behind, slot, &row, False, False)
            # A look-up alone takes no room.
            if outcome == OUTCOME_FOUND or value is None or status == STATUS_DONE:
                status = STATUS_DONE
                behind_read(&self.behind, slot, &row, request.counted, True)
                if outcome == OUTCOME_ABSENT and value is not None:
                    outcome = behind_put(
                        &self.behind, slot, &row, PyBytes_AS_STRING(value), native_now(), NULL
                    )
                    native_copy(row.value, PyBytes_AS_STRING(value), self._value_schema.size)
                    request.created = True
                raw.found[0] = outcome == OUTCOME_FOUND
        release(self)
        self.ring_bell()
        return status

    def _pop(self, Request request not None, bytes expected not None):
        """Delete the only row if its value, packed, is what is expected, or if there is none; the status,
        with nothing changed unless it is DONE. Where it is OTHER, `request.values` has the value."""
        cdef request_t raw
        cdef only_t only
        cdef size_t size = self._value_schema.size
        cdef int status
        if len(request) != 1 or len(expected) != self._value_schema.size:
            raise ValueError("one row, and a value of its size")
        self.writable()
        raw = request.raw_of(self)
        self.lock_for_write()
        status = through_prepare_only(&self.behind, &raw, &request.room, &only)
        if status == STATUS_DONE:
            if only.value is not NULL and not native_equal(only.value, PyBytes_AS_STRING(expected), size):
                if only.value is not only.row.value:
                    native_copy(only.row.value, only.value, size)
                status = through_put_off(&raw, &only)
            else:
                raw.found[0] = OUTCOME_FOUND == behind_delete(
                    &self.behind, only.slot, &only.row, native_now()
                )
        release(self)
        self.ring_bell()
        return status

    def _delete(self, Request request not None):
        """Delete the rows; the status, with nothing changed unless it is DONE."""
        cdef cnp.npy_intp rows = len(request)
        cdef cnp.ndarray missing = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
        cdef int64_t *missing_data = <int64_t *>cnp.PyArray_DATA(missing)
        cdef request_t raw
        cdef PyThreadState *state
        cdef int status
        self.writable()
        raw = request.raw_of(self)
        state = self.enter_for_write(rows)
        status = through_prepare(&self.behind, &raw, missing_data, &request.room)
        if status == STATUS_DONE:
            through_delete(self.behind, raw, native_now())
        self.leave(state)
        self.ring_bell()
        return status

    def _delete_least_recent(self, Request request=None):
        """`(key, value)` of the least recent entry in memory, deleted; None when there is none; NO_ROOM, and
        nothing changed, when that has to wait. `request`, of one row, is None for the first attempt."""
        cdef Schema schema = self._value_schema
        cdef key_t encoded
        cdef bytes value = PyBytes_FromStringAndSize(NULL, schema.size)
        cdef uint64_t ticket = 0 if request is None else request.ticket
        cdef row_t row
        cdef slot_t slot
        cdef uint64_t version
        cdef bint fits
        self.writable()
        while True:             # the result is made first: that may fail
            self.lock_for_write()
            slot = lru_least_recent(&self.slab.lru)
            version = self.slab.header.version
            if slot != NIL:
                native_copy(encoded.packed, slab_key(&self.slab, slot), self._key_schema.size)
                native_copy(PyBytes_AS_STRING(value), slab_value(&self.slab, slot), schema.size)
            release(self)
            if slot == NIL:
                return None
            item = self._key_schema.decode(encoded.packed), schema.decode(PyBytes_AS_STRING(value))
            self.lock_for_write()
            if version == self.slab.header.version:
                break
            release(self)
        fits = room_for_one(&self.behind, ticket, slot)
        if fits:
            encoded.hash = slab_hash(&self.slab, encoded.packed)
            row = row_of(&encoded, PyBytes_AS_STRING(value), NULL)
            behind_delete(&self.behind, slot, &row, native_now())
        elif request is not None:
            request.room = room_t(1, 0, False)
        release(self)
        self.ring_bell()
        return item if fits else NO_ROOM

    def _invalidate(self, Request request not None):
        """Drop the rows from memory that are saved; how many were there. `request.found` says which are not
        there now."""
        cdef request_t raw
        cdef PyThreadState *state
        cdef size_t count
        self.usable()
        raw = request.raw()
        state = self.enter(raw.rows)
        count = through_invalidate(self.behind, raw.keys, raw.rows, raw.found)
        self.leave(state)
        return count

    def _outdate_loads(self):
        """What loads find that are under way, or have ended and not been used yet, is loaded again."""
        cdef PyThreadState *state
        self.usable()
        state = self.enter(BATCH_ROWS)
        behind_outdate_all(&self.behind)
        self.leave(state)

    def _scan(self, uint64_t start, uint64_t count):
        """The keys in the `count` slots from `start` on, the first of which is 1; None when there are no
        more."""
        cdef cnp.ndarray keys
        cdef uint64_t fresh, stop
        cdef size_t found
        cdef PyThreadState *state
        self.usable()
        lock_acquire(&self.lock)
        fresh = self.slab.header.fresh      # it only rises
        lock_release(&self.lock)
        if not 1 <= start <= fresh:
            return None
        stop = min(start + count, fresh + 1)
        keys = empty_rows(self._key_schema.packed, stop - start)
        state = self.enter(stop - start)
        found = through_scan(self.behind, start, stop, cnp.PyArray_BYTES(keys))
        self.leave(state)
        return from_rows(self._key_schema, keys[:found])
