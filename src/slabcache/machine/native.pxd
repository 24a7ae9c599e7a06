"""Declarations of `native.h`."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "machine/native.h" nogil:
    const bint DEBUG "NATIVE_DEBUG"

    size_t native_by_key_size(size_t size, size_t call)     # a macro: see there

    void native_prefetch(const void *address)
    uint64_t native_multiply(uint64_t a, uint64_t b, uint64_t *high)
    uint64_t native_multiply_high(uint64_t a, uint64_t b)
    uint32_t native_match_tags(const uint8_t *tags, uint8_t tag)
    uint32_t native_first_bit(uint32_t bits)
    void native_copy(char *target, const char *source, size_t size)
    void native_settle(const char *copy)
    bint native_equal(const char *a, const char *b, size_t size)
    double native_from_half(uint16_t half)
    uint16_t native_to_half(double number)
    uint64_t native_now()
    size_t native_page_size()
    void *native_map(size_t size)
    void native_unmap(void *memory, size_t size)
