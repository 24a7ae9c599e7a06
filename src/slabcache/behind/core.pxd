"""Table of contents of `core.pyx`: the calls of `WriteBehindCache` that never wait."""

from libc.stdint cimport uint64_t

from slabcache._base cimport key_t
from slabcache.behind.arena.slab cimport outcome_t, row_t
from slabcache.behind.drain cimport DrainCore


cdef class WriteBehindCore(DrainCore):
    cdef object bells           # a queue: None in it wakes the flusher; None before there is one
    cdef list kept              # of one item, which becomes the cache once its users have dropped it

    cdef object attempt(self, object key, bint counted, bint moves)
    cdef object attempt_scalar(self, const key_t *key, bint counted, bint moves)
    cdef outcome_t see_row(
        self, const key_t *key, const row_t *row, bint counted, uint64_t *version
    ) noexcept
    cdef bint attempt_put(self, object key, object value) except -1
    cdef object attempt_increment(self, object key, object field, object by)
    cdef int ring_bell(self) except -1
