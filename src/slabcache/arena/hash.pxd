"""Keyed hash of a packed key: two rounds of folded multiplication with secret words.

The keys of a service are chosen by its users, so that flooding one bucket is part of the threat: the
four secret words are drawn for each cache from the system's randomness and never leave it. One
round multiplies 16 bytes of key, masked by two secrets, to 128 bits and adds the halves without
carry; the last round mixes once more, so that each bit of the key reaches the high bits of the hash,
which pick the bucket, and the low ones, which make the tag.

Source: the folded multiply of wyhash (Wang Yi, 2019) and foldhash (Orson Peters, 2024).
`docs/decisions.md` compares it with SipHash-1-3.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from slabcache.arena.header cimport seed_t
from slabcache.machine.native cimport native_multiply


cdef inline uint64_t hash_fold(uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t high
    cdef uint64_t low = native_multiply(a, b, &high)
    return low ^ high


cdef inline uint64_t hash_key(const seed_t *seed, const char *key, size_t size) noexcept nogil:
    """Hash of the `size` bytes at `key`; `size` is the same for all keys of a cache."""
    cdef uint64_t first = 0, second = 0, state = 0
    if size == 16:
        memcpy(&first, key, 8)
        memcpy(&second, key + 8, 8)
        state = hash_fold(first ^ seed.words[0], second ^ seed.words[1])
    elif size == 8:
        memcpy(&first, key, 8)
        state = hash_fold(first ^ seed.words[0], seed.words[1])
    else:
        while size > 16:
            memcpy(&first, key, 8)
            memcpy(&second, key + 8, 8)
            state = hash_fold(first ^ seed.words[0] ^ state, second ^ seed.words[1])
            key += 16
            size -= 16
        first = second = 0
        if size > 8:
            memcpy(&first, key, 8)
            memcpy(&second, key + 8, size - 8)
        else:
            memcpy(&first, key, size)
        state = hash_fold(first ^ seed.words[0] ^ state, second ^ seed.words[1])
    return hash_fold(state ^ seed.words[2], seed.words[3])
