"""Arithmetic on one numeric field in place, inside a packed record: a sum that does not fit changes nothing.

No alignment is assumed.
"""

from libc.math cimport isfinite
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from slabcache.machine.native cimport native_from_half, native_to_half


cdef enum kind_t:               # what the bytes of a field are
    KIND_SIGNED                 # 1, 2, 4 or 8 bytes
    KIND_UNSIGNED               # 1, 2, 4 or 8 bytes
    KIND_FLOAT                  # 2, 4 or 8 bytes
    KIND_BOOL                   # 1 byte, 0 or 1
    KIND_BYTES                  # S<n>: NUL-padded
    KIND_VOID                   # V<n>: raw
    KIND_NUMPY                  # datetime64, timedelta64 and subarrays: numpy's own codec


cdef struct field_t:
    uint32_t offset             # bytes from the start of the packed record
    uint32_t size               # bytes
    kind_t kind


cdef struct delta_t:            # what is added: sign and magnitude to integers, `real` to floats
    uint64_t magnitude
    double real
    bint negative


cdef inline uint64_t field_load(const char *source, uint32_t size) noexcept nogil:
    """The unsigned integer of 1, 2, 4 or 8 bytes at `source`."""
    cdef uint8_t byte
    cdef uint16_t half
    cdef uint32_t word
    cdef uint64_t full
    if size == 8:
        memcpy(&full, source, 8)
    elif size == 4:
        memcpy(&word, source, 4)
        full = word
    elif size == 2:
        memcpy(&half, source, 2)
        full = half
    else:
        memcpy(&byte, source, 1)
        full = byte
    return full


cdef inline void field_store(char *target, uint32_t size, uint64_t number) noexcept nogil:
    """Store the low `size` bytes of `number`; two's complement makes it right for signed ones too."""
    cdef uint8_t byte = <uint8_t>number
    cdef uint16_t half = <uint16_t>number
    cdef uint32_t word = <uint32_t>number
    if size == 8:
        memcpy(target, &number, 8)
    elif size == 4:
        memcpy(target, &word, 4)
    elif size == 2:
        memcpy(target, &half, 2)
    else:
        memcpy(target, &byte, 1)


cdef inline uint64_t field_limit(uint32_t size) noexcept nogil:
    """The largest unsigned integer of `size` bytes."""
    return <uint64_t>-1 >> (64 - 8 * size)


cdef inline uint64_t field_top(const field_t *field) noexcept nogil:
    """The largest number that an integer field holds."""
    return field_limit(field.size) >> (1 if field.kind == KIND_SIGNED else 0)


cdef inline double float_load(const char *source, uint32_t size) noexcept nogil:
    """The floating-point number of 2, 4 or 8 bytes at `source`."""
    cdef double real
    cdef float single
    cdef uint16_t half
    if size == 8:
        memcpy(&real, source, 8)
        return real
    if size == 4:
        memcpy(&single, source, 4)
        return single
    memcpy(&half, source, 2)
    return native_from_half(half)


cdef inline void float_store(char *target, uint32_t size, double real) noexcept nogil:
    """Store `real`, rounded to `size` bytes."""
    cdef float single
    cdef uint16_t half
    if size == 8:
        memcpy(target, &real, 8)
    elif size == 4:
        single = <float>real
        memcpy(target, &single, 4)
    else:
        half = native_to_half(real)
        memcpy(target, &half, 2)


cdef inline bint float_add(uint32_t size, char *target, double delta) noexcept nogil:
    """Add in place; False, and nothing changed, when two finite numbers become infinite."""
    cdef char result[8]
    cdef double real = float_load(target, size)
    float_store(result, size, real + delta)
    if isfinite(real) and isfinite(delta) and not isfinite(float_load(result, size)):
        return False
    memcpy(target, result, size)
    return True


cdef inline bint field_add(const field_t *field, char *target, const delta_t *delta) noexcept nogil:
    """Add `delta` to the number at `target`; False, and nothing changed, when it would wrap.

    A signed number is shifted by half of its range (its top bit flipped), so that both kinds are the same
    unsigned sum within 0 and `limit`. The field is SIGNED, UNSIGNED, or FLOAT.
    """
    cdef uint64_t number, limit, shift
    if field.kind == KIND_FLOAT:
        return float_add(field.size, target, delta.real)
    limit = field_limit(field.size)
    shift = limit / 2 + 1 if field.kind == KIND_SIGNED else 0
    number = field_load(target, field.size) ^ shift
    if delta.negative:
        if delta.magnitude > number:
            return False
        number -= delta.magnitude
    else:
        if delta.magnitude > limit - number:
            return False
        number += delta.magnitude
    field_store(target, field.size, number ^ shift)
    return True
