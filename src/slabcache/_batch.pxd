"""Table of contents of `_batch.pyx`."""

from slabcache._core cimport CacheCore
from slabcache._record cimport Schema


cdef class BatchCore(CacheCore):
    cdef object rows_of(self, Schema schema, object source)
    cdef object read_many(self, object keys, object out, bint counted)
    cdef object test_many(self, object keys, bint touch)
