"""Table of contents of `request.pyx`: the rows of a batch call before a store."""

cimport numpy as cnp
from libc.stdint cimport uint64_t

from slabcache.behind.drain cimport DrainCore
from slabcache.behind.arena.room cimport room_t
from slabcache.behind.arena.batch cimport request_t


cdef enum:                      # what a request is for
    PURPOSE_READ = 0
    PURPOSE_CHANGE = 1
    PURPOSE_CREATE = 2          # it does something to absent rows

    LOADS_MAX = 3               # of a row that is written again and again meanwhile


cdef class Request:
    cdef readonly cnp.ndarray keys      # packed
    cdef readonly cnp.ndarray values    # packed: of each row what was loaded, then the result
    cdef readonly cnp.ndarray found     # bools
    cdef readonly cnp.ndarray since     # of each row: number of the last write before its load
    cdef cnp.ndarray stored             # stored_t of each row
    cdef bint owned             # `keys` belongs to nobody else
    cdef bint single            # keys were given as a zero-dimensional array
    cdef int purpose
    cdef int loads                      # how often rows were missing
    cdef room_t room                    # what the last attempt of a change has found
    cdef uint64_t ticket                # of a change that has waited for room; 0 before
    cdef readonly bint counted, moves   # of a read
    cdef readonly bint created          # the row was written by the call
    cdef readonly size_t done           # rows that have run, of a call that stops half-way
    cdef readonly object result         # of one row, made before it was changed
    cdef bytes default                  # packed, or None
    cdef cnp.ndarray first              # whether a row is the first of its key; None until that matters

    cdef int expect(self) except -1
    cdef request_t view(self) except *
    cdef request_t view_of(self, DrainCore cache) except *
