"""Table of contents of `_write_behind.pyx`: the calls of `WriteBehindCache` that never wait."""

cimport numpy as cnp
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint64_t, uintptr_t

from slabcache._base cimport SlabBase
from slabcache._behind cimport batch_t, outcome_t, row_t
from slabcache._lock cimport flag_t
from slabcache._lookahead cimport column_t
from slabcache._through cimport request_t, room_t
from slabcache._unsaved cimport behind_t


cdef enum:                      # what a request is for
    PURPOSE_READ = 0
    PURPOSE_CHANGE = 1
    PURPOSE_CREATE = 2          # it does something to absent rows

    LOADS_MAX = 3               # of a row that is written again and again meanwhile


cdef class WriteBehindCore(SlabBase)


cdef class Request:
    cdef readonly cnp.ndarray keys      # packed
    cdef readonly cnp.ndarray values    # packed: of each row what was loaded, then the result
    cdef readonly cnp.ndarray found     # bools
    cdef readonly cnp.ndarray since     # of each row: number of the last write before its load
    cdef cnp.ndarray stored             # stored_t of each row
    cdef bint owned             # `keys` belongs to nobody else
    cdef int purpose
    cdef int loads                      # how often rows were missing
    cdef room_t room                    # what the last attempt of a change has found
    cdef readonly bint counted, moves   # of a read
    cdef readonly bint created          # the row was written by the call
    cdef readonly size_t done           # rows that have run, of a call that stops half-way
    cdef readonly object result         # of one row, made before it was changed
    cdef bytes default                  # packed, or None
    cdef cnp.ndarray first              # whether a row is the first of its key; None until that matters

    cdef int expect(self) except -1
    cdef request_t view(self) except *
    cdef request_t view_of(self, WriteBehindCore cache) except *


cdef class Batch:
    cdef cnp.ndarray slots, since, deleted, keys, values
    cdef batch_t taken          # where in them the next row goes
    cdef uintptr_t cache        # whose rows they are


cdef class WriteBehindCore(SlabBase):
    cdef behind_t behind        # views into the same arena as `slab`
    cdef bytes default          # packed, or None
    cdef flag_t closed

    cdef const char *default_data(self) noexcept
    cdef object attempt(self, object key, bint counted, bint moves)
    cdef object attempt_scalar(self, const char *key, bint counted, bint moves)
    cdef outcome_t see_row(self, const row_t *row, bint counted, uint64_t *version) noexcept
    cdef bint attempt_put(self, object key, object value) except -1
    cdef object attempt_increment(self, object key, object field, object by)
    cdef int writable(self) except -1
    cdef int lock_for_write(self) except -1
    cdef PyThreadState *enter_for_write(self, uint64_t rows) except? NULL
    cdef int ring_bell(self) except -1
    cdef int check_batch(self, Batch batch) except -1
    cdef cnp.ndarray checked_slots(self, cnp.ndarray slots)
