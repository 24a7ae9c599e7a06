"""Declarations of `_integer.h`."""

from libc.stdint cimport uint64_t


cdef extern from "_integer.h":
    bint integer_load(object item, uint64_t *number)
