"""The rows of a call that may have to wait: keys, what the store has for them, and results.

A call is attempted until nothing is missing and there is room; this is what it keeps from one attempt to the
next.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t, uint64_t

from slabcache._base cimport empty_rows
from slabcache._batch cimport column_of, is_single, packed_rows
from slabcache.behind.arena.slab cimport STORED_ABSENT, STORED_FOUND, STORED_LATER
from slabcache.behind.drain cimport DrainCore
from slabcache.machine.native cimport native_copy
from slabcache.behind.arena.batch cimport request_t

import numpy as np

from slabcache.codec.rows import first_of_each

cnp.import_array()

READ, CHANGE, CREATE = PURPOSE_READ, PURPOSE_CHANGE, PURPOSE_CREATE     # what a request is for


cdef class Request:
    """The rows of a batch call, what the store has for them, and the results."""

    def __cinit__(
        self, DrainCore cache not None, object keys, int purpose, bint counted=False, bint moves=False
    ):
        cdef cnp.npy_intp rows
        self.keys = packed_rows(cache._key_schema, keys)
        self.single = self.keys is not keys and is_single(keys)
        rows = cnp.PyArray_DIM(self.keys, 0)
        self.values = empty_rows(cache._value_schema.packed, rows)
        self.found = cnp.PyArray_ZEROS(1, &rows, cnp.NPY_BOOL, 0)
        self.purpose = purpose
        if purpose != PURPOSE_READ:
            self.expect()
        self.counted = counted
        self.moves = moves
        self.default = cache.default

    cdef int expect(self) except -1:
        """Make room for what the store has. A read of what is in memory needs none."""
        cdef cnp.npy_intp rows = cnp.PyArray_DIM(self.found, 0)
        if self.stored is None:
            self.stored = cnp.PyArray_ZEROS(1, &rows, cnp.NPY_UINT8, 0)
            self.as_of = cnp.PyArray_ZEROS(1, &rows, cnp.NPY_UINT64, 0)
        return 0

    cdef request_t raw_of(self, DrainCore cache) except *:
        """`raw` for a change of `cache`, which `supply` may not have made room for."""
        if self.keys.dtype != cache._key_schema.packed or self.values.dtype != cache._value_schema.packed:
            raise ValueError("request: not of this cache")
        self.expect()
        return self.raw()

    cdef request_t raw(self) except *:
        cdef request_t request
        cdef cnp.npy_intp rows = cnp.PyArray_DIM(self.found, 0)
        request.keys = column_of(self.keys, cnp.PyArray_ITEMSIZE(self.keys), rows)
        request.rows = rows
        request.values = column_of(self.values, cnp.PyArray_ITEMSIZE(self.values), rows)
        request.stored = NULL if self.stored is None else <uint8_t *>cnp.PyArray_DATA(self.stored)
        request.as_of = NULL if self.stored is None else <uint64_t *>cnp.PyArray_DATA(self.as_of)
        request.found = <uint8_t *>cnp.PyArray_DATA(self.found)
        request.default = NULL if self.default is None else PyBytes_AS_STRING(self.default)
        request.first = NULL if self.first is None else <const uint8_t *>cnp.PyArray_DATA(self.first)
        request.ticket = self.ticket
        request.creates = self.purpose == PURPOSE_CREATE or self.default is not None
        return request

    def supply(self, cnp.ndarray rows not None, values, found, as_of, bint later):
        """Take what the store has for some rows, by their numbers; `later` if the load began after the call.

        A write during the load wins, and the row is loaded once more. That must come to an end: what a later
        load has found was so during the call, and will do as an answer where nothing is made from it.
        """
        self.expect()
        # By hand: numpy 2.4 reads a null pointer, or leaves rows as they were, where a cast finds no memory.
        cdef cnp.ndarray numbers = np.ascontiguousarray(rows, np.int64)
        cdef cnp.ndarray loaded = np.ascontiguousarray(values), flags = np.ascontiguousarray(found, np.bool_)
        cdef const int64_t *row = <const int64_t *>cnp.PyArray_DATA(numbers)
        cdef const uint8_t *has_row = <const uint8_t *>cnp.PyArray_DATA(flags)
        cdef uint8_t *stored = <uint8_t *>cnp.PyArray_DATA(self.stored)
        cdef uint64_t *write_numbers = <uint64_t *>cnp.PyArray_DATA(self.as_of)
        cdef uint64_t loaded_as_of = as_of
        cdef size_t size = cnp.PyArray_ITEMSIZE(self.values)
        cdef cnp.npy_intp at, count = cnp.PyArray_SIZE(numbers), limit = cnp.PyArray_DIM(self.found, 0)
        cdef bint answers = later and self.loads >= LOADS_MAX
        if loaded.dtype != self.values.dtype or cnp.PyArray_SIZE(loaded) != count or flags.size != count:
            raise ValueError("values and found: not as many packed rows as there are row numbers")
        for at in range(count):
            if not 0 <= row[at] < limit:
                raise IndexError("rows: no such row")
        for at in range(count):
            stored[row[at]] = STORED_FOUND if has_row[at] else STORED_ABSENT
            if answers and (self.purpose == PURPOSE_READ or (
                self.purpose == PURPOSE_CHANGE and self.default is None and not has_row[at]
            )):
                stored[row[at]] |= STORED_LATER
            write_numbers[row[at]] = loaded_as_of
            native_copy(
                cnp.PyArray_BYTES(self.values) + row[at] * size, cnp.PyArray_BYTES(loaded) + at * size, size
            )

    def find_first(self):
        """Mark the rows that are the first of their key; how many there are."""
        self.first = first_of_each(self.keys)
        return np.count_nonzero(self.first)

    @property
    def shape(self):
        """Of the results: those of a zero-dimensional array of keys have none either."""
        return () if self.single else (len(self),)

    @property
    def has_first(self):
        return self.first is not None

    @property
    def needed(self):
        """Rows that a change that found too little room would make unsaved."""
        return self.room.needed

    @property
    def lacking(self):
        """Of them, those that there is no room for; 0 where there is room that is kept for another change."""
        return self.room.lacking

    @property
    def keeps(self):
        """Whether what is loaded becomes an entry in memory."""
        return self.moves or self.purpose != PURPOSE_READ

    def __len__(self):
        return cnp.PyArray_DIM(self.found, 0)
