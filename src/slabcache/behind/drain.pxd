"""Table of contents of `drain.pyx`: an arena before a store, as the flusher has to do with it."""

cimport numpy as cnp
from cpython.pystate cimport PyThreadState
from libc.stdint cimport uint64_t, uintptr_t

from slabcache._base cimport SlabBase
from slabcache.behind.arena.slab cimport drained_t
from slabcache.machine.lock cimport flag_t
from slabcache.behind.arena.unsaved cimport behind_t


cdef class Drained:
    cdef cnp.ndarray slots, since, deleted, keys, values
    cdef drained_t taken        # where in them the next row goes
    cdef uintptr_t cache        # whose rows they are


cdef class DrainCore(SlabBase):
    cdef behind_t behind        # views into the same arena as `slab`
    cdef bytes default          # packed, or None
    cdef flag_t closed

    cdef int writable(self) except -1
    cdef int lock_for_write(self) except -1
    cdef PyThreadState *enter_for_write(self, uint64_t rows) except? NULL
    cdef int check_drained(self, Drained drained) except -1
    cdef cnp.ndarray checked_slots(self, cnp.ndarray slots)
