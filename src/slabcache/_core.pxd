"""Table of contents of `_core.pyx`: the scalar calls of `SlabCache`."""

cimport numpy as cnp

from slabcache._base cimport SlabBase
from slabcache._slab cimport rows_t


cdef enum look_up_t:
    LOOK_UP_GET                 # counted, makes the entry the most recent
    LOOK_UP_PEEK                # changes nothing
    LOOK_UP_POP                 # deletes the entry


cdef class Sink:
    cdef cnp.ndarray keys, values
    cdef rows_t rows


cdef class CacheCore(SlabBase):
    cdef readonly object on_evict

    cdef int put(self, const char *key, const char *value) except -1
    cdef Sink new_sink(self)
    cdef int report_sink(self, Sink sink) except -1
    cdef int report(self, object keys, object values) except -1
