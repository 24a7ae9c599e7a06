"""Declarations of `integer.h`."""

from libc.stdint cimport uint64_t


cdef extern from "machine/integer.h":
    bint integer_load(object item, uint64_t *number)
    object integer_room(uint64_t limit)
    object integer_fill(object room, uint64_t number)
