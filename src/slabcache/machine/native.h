/* What Cython cannot say: prefetch, wide multiplication, byte-tag matching, memory from the system.
 *
 * Everything here is a static inline function without state. SSE2 and NEON are part of the baseline
 * of x86-64 and AArch64; every other machine, and a build with SLABCACHE_PORTABLE, takes plain C.
 */
#ifndef SLABCACHE_NATIVE_H
#define SLABCACHE_NATIVE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

#if !defined(SLABCACHE_PORTABLE) && (defined(__SSE2__) || defined(_M_X64))
#define SLABCACHE_SSE2 1
#include <emmintrin.h>
#elif !defined(SLABCACHE_PORTABLE) && defined(__aarch64__)
#define SLABCACHE_NEON 1
#include <arm_neon.h>
#endif

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif
#endif

/* Inline functions, those of the core and Cython's own, are inlined wherever they are called, so that what is
   constant there, such as the size of a key, is constant inside. Left to themselves, compilers stop earlier. */
#if defined(__GNUC__) && defined(__OPTIMIZE__)
#undef CYTHON_INLINE
#define CYTHON_INLINE __inline__ __attribute__((always_inline))
#endif

/* A call that is compiled three times: with keys of 16 and of 8 bytes as constants, and of any size. `size` is a
   variable of the caller's, and `call` stands there as text, an expression in which the variable is used. */
#define native_by_key_size(size, call)                                                             \
    ((size) == 16 ? ((size) = 16, (call)) : (size) == 8 ? ((size) = 8, (call)) : (call))

/* `if DEBUG:` in Cython code costs nothing in a release build. */
#if defined(SLABCACHE_DEBUG)
enum { NATIVE_DEBUG = 1 };
#else
enum { NATIVE_DEBUG = 0 };
#endif

#if defined(__GNUC__)
#define native_prefetch(address) __builtin_prefetch((address), 1, 3)
#elif defined(SLABCACHE_SSE2)
#define native_prefetch(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
#else
#define native_prefetch(address) ((void)(address))
#endif

/* ---- 64 x 64 -> 128 bit multiplication ------------------------------------------------------ */

static inline uint64_t native_multiply(uint64_t a, uint64_t b, uint64_t *high)
{
#if defined(__SIZEOF_INT128__) && !defined(SLABCACHE_PORTABLE)
    unsigned __int128 product = (unsigned __int128)a * b;
    *high = (uint64_t)(product >> 64);
    return (uint64_t)product;
#elif defined(_MSC_VER) && defined(_M_X64) && !defined(SLABCACHE_PORTABLE)
    return _umul128(a, b, high);
#else
    uint64_t a_low = (uint32_t)a, a_high = a >> 32, b_low = (uint32_t)b, b_high = b >> 32;
    uint64_t low = a_low * b_low, mid_a = a_high * b_low, mid_b = a_low * b_high;
    uint64_t carry = ((low >> 32) + (uint32_t)mid_a + (uint32_t)mid_b) >> 32;
    *high = a_high * b_high + (mid_a >> 32) + (mid_b >> 32) + carry;
    return a * b;
#endif
}

static inline uint64_t native_multiply_high(uint64_t a, uint64_t b)
{
    uint64_t high;
    native_multiply(a, b, &high);
    return high;
}

/* ---- matching one byte against the twelve tags of a bucket ---------------------------------- */

static inline uint32_t native_match_tags(const uint8_t *tags, uint8_t tag)
/* Bit i of the result is set where tags[i] == tag, i < 12. Reads 16 bytes from `tags`. */
{
#if defined(SLABCACHE_SSE2)
    /* Not _mm_set1_epi8: compilers spill the byte and load a word, which waits for all stores before it. */
    __m128i lanes = _mm_loadu_si128((const __m128i *)(const void *)tags);
    __m128i wanted = _mm_set1_epi32((int)(tag * 0x01010101u));
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(lanes, wanted)) & 0xFFFu;
#elif defined(SLABCACHE_NEON)
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bits = vandq_u8(vceqq_u8(vld1q_u8(tags), vdupq_n_u8(tag)), vld1q_u8(weights));
    uint32_t low = vaddv_u8(vget_low_u8(bits)), high = vaddv_u8(vget_high_u8(bits));
    return (low | high << 8) & 0xFFFu;
#else
    const uint64_t low_bits = 0x7F7F7F7F7F7F7F7Fu;
    uint32_t matches = 0;
    for (int half = 0; half < 2; half++) {
        uint64_t word = 0, zero;
        for (int i = 0; i < 8; i++) /* little endian on any machine; compilers make one load of it */
            word |= (uint64_t)tags[8 * half + i] << (8 * i);
        word ^= 0x0101010101010101u * tag;
        zero = ~(((word & low_bits) + low_bits) | word | low_bits); /* 0x80 where the byte is 0 */
        matches |= (uint32_t)(((zero >> 7) * 0x0102040810204080u) >> 56) << (8 * half);
    }
    return matches & 0xFFFu;
#endif
}

static inline uint32_t native_first_bit(uint32_t bits)
/* The number of the lowest set bit; `bits` is not 0. */
{
#if defined(_MSC_VER)
    unsigned long index;
    _BitScanForward(&index, bits);
    return (uint32_t)index;
#elif defined(__GNUC__)
    return (uint32_t)__builtin_ctz(bits);
#else
    uint32_t index = 0;
    while (!(bits >> index & 1u))
        index++;
    return index;
#endif
}

/* ---- short runs of bytes --------------------------------------------------------------------- */

/* Keys and values are short and all of one size. A call of memcpy or memcmp then costs more than its work; so
   the ends of a run are moved as two pieces that may overlap, and the branches on its size are always right. */

#define NATIVE_MOVE_ENDS(width)                                                                    \
    do {                                                                                           \
        unsigned char first[width], last[width];                                                   \
        memcpy(first, source, width);                                                              \
        memcpy(last, source + size - width, width);                                                \
        memcpy(target, first, width);                                                              \
        memcpy(target + size - width, last, width);                                                \
    } while (0)

static inline void native_copy(char *target, const char *source, size_t size)
{
    if (size > 64 || size < 4)
        memcpy(target, source, size);
    else if (size > 32)
        NATIVE_MOVE_ENDS(32);
    else if (size > 16)
        NATIVE_MOVE_ENDS(16);
    else if (size >= 8)
        NATIVE_MOVE_ENDS(8);
    else
        NATIVE_MOVE_ENDS(4);
}

/* What follows reads `copy`, and never again what it was copied from, which another thread may change. */
#if defined(__GNUC__)
#define native_settle(copy) __asm__ volatile("" : : "r"(copy) : "memory")
#else
#define native_settle(copy) ((void)(copy))
#endif

static inline uint64_t native_load(const char *source)
{
    uint64_t word;
    memcpy(&word, source, 8);
    return word;
}

static inline int native_equal(const char *a, const char *b, size_t size)
{
    uint64_t ends;
    if (size > 32 || size < 8)
        return memcmp(a, b, size) == 0;
    ends = (native_load(a) ^ native_load(b)) | (native_load(a + size - 8) ^ native_load(b + size - 8));
    if (size > 16)
        ends |= (native_load(a + 8) ^ native_load(b + 8)) |
                (native_load(a + size - 16) ^ native_load(b + size - 16));
    return ends == 0;
}

/* ---- half precision -------------------------------------------------------------------------- */

static inline double native_from_half(uint16_t half)
{
    int exponent = half >> 10 & 31;
    double magnitude = half & 1023;
    if (exponent == 31)
        magnitude = magnitude ? NAN : INFINITY;
    else if (exponent)
        magnitude = ldexp(magnitude + 1024, exponent - 25);
    else
        magnitude = ldexp(magnitude, -24);
    return half >> 15 ? -magnitude : magnitude;
}

static inline uint16_t native_to_half(double number)
/* Rounded once, to nearest, ties to even; infinite from 65520 on. */
{
    uint16_t sign = signbit(number) ? 0x8000 : 0;
    int exponent;
    if (isnan(number))
        return sign | 0x7E00;
    number = fabs(number);
    if (number >= 65520)
        return sign | 0x7C00;
    if (number < ldexp(1, -14)) /* subnormal: a multiple of 2**-24; 1024 of them carry into the exponent */
        return sign | (uint16_t)nearbyint(ldexp(number, 24));
    (void)frexp(number, &exponent); /* 2**(exponent-1) <= number; a mantissa of 2048 carries likewise */
    return sign | (uint16_t)(((exponent + 13) << 10) + (int)nearbyint(ldexp(number, 11 - exponent)));
}

/* ---- time ------------------------------------------------------------------------------------- */

static inline uint64_t native_now(void)
/* Monotonic nanoseconds, as time.monotonic_ns() has them but for a few milliseconds: a write may not take
   longer for its time stamp than for its work. */
{
#if defined(_WIN32)
    return (uint64_t)GetTickCount64() * 1000000u;
#else
    struct timespec now;
#if defined(CLOCK_MONOTONIC_COARSE)
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

/* ---- memory from the system ------------------------------------------------------------------ */

static inline size_t native_page_size(void)
{
#if defined(_WIN32)
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (size_t)info.dwPageSize;
#else
    return (size_t)sysconf(_SC_PAGESIZE);
#endif
}

static inline void *native_map(size_t size)
/* `size` zeroed bytes, reserved now and touched only when used; NULL when they cannot be had. */
{
#if defined(_WIN32)
    return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
#else
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
#if defined(MADV_HUGEPAGE)
    /* A wish, not a need: fewer misses of the address cache on random reads. Small arenas would
       only round their resident size up to one huge page. */
    if (size >= (size_t)8 << 20)
        (void)madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
#endif
}

static inline void native_unmap(void *memory, size_t size)
{
#if defined(_WIN32)
    (void)size;
    VirtualFree(memory, 0, MEM_RELEASE);
#else
    munmap(memory, size);
#endif
}

#endif
