"""Table of contents of `_batch.pyx`."""

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint64_t

from slabcache._core cimport CacheCore
from slabcache.arena.lookahead cimport column_t
from slabcache.codec.record cimport Schema
from slabcache.arena.slab cimport rows_t


cdef column_t column_of(cnp.ndarray rows, Py_ssize_t size, cnp.npy_intp count) except *
cdef object packed_rows(Schema schema, object source)
cdef bint is_single(object keys)


cdef class BatchCore(CacheCore):
    cdef object rows_of(self, Schema schema, object source)
    cdef void read_rows(
        self, column_t keys, size_t rows, column_t values, uint8_t *found, bint counted
    ) noexcept
    cdef object read_many(self, object keys, bint counted)
    cdef object read_into(self, object keys, object out, bint counted)
    cdef object test_many(self, object keys, bint touch)
    cdef uint64_t put_rows(self, column_t keys, column_t values, size_t rows, rows_t *evicted) noexcept
