"""From packed rows to rows as the user's dtype lays them out: with padding, in another byte order.

numpy's own conversion asks for memory, which may be short once a cache is changed, and where it finds none it
can leave the bytes as they were, without an error (2.4).
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy


cdef struct span_t:             # of one field
    uint32_t packed             # bytes from the start of a packed row
    uint32_t own                # bytes from the start of a row of the user's dtype
    uint32_t size
    uint32_t unit               # bytes of the numbers that it is made of, where their order is reversed; or 0


cdef inline void span_copy(const span_t *span, char *target, const char *source) noexcept nogil:
    cdef uint32_t at = 0, byte
    if span.unit == 0:
        memcpy(target, source, span.size)
        return
    while at < span.size:
        for byte in range(span.unit):
            target[at + byte] = source[at + span.unit - 1 - byte]
        at += span.unit


cdef inline void layout_unpack(
    const span_t *spans, size_t count, char *own, size_t own_size, const char *packed, size_t size,
    size_t rows
) noexcept nogil:
    """Write packed rows, of `size` bytes each, as rows of the user's dtype, between padding bytes."""
    cdef const span_t *span
    cdef size_t row, number
    for row in range(rows):
        for number in range(count):
            span = spans + number
            span_copy(span, own + row * own_size + span.own, packed + row * size + span.packed)
