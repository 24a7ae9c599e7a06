"""The lock of a cache and the gate before fork(); `lock_state.h` tells how both work.

Scalar calls:  lock_acquire, change the arena, lock_release: the GIL, where there is one, is kept.
Batches:       batch_enter, let the GIL go, change the arena, batch_leave, take the GIL back.

`SlabBase.enter` and `leave` do the latter, by hand, as small batches keep the GIL: Cython does not check
that what stands between them needs no GIL, so it must be calls of `nogil` functions alone. The state of all
locks belongs to this module; what needs none of it is done in line.
"""

cdef extern from "machine/lock.h" nogil:
    ctypedef struct lock_t:
        const bint forked       # this process is a child of the one that made the lock

    ctypedef bint flag_t        # read and set by any thread, with or without the lock

    bint lock_try(lock_t *lock)
    void lock_release(lock_t *lock)


cdef void lock_init(lock_t *lock) noexcept nogil
cdef void lock_destroy(lock_t *lock) noexcept nogil
cdef void lock_wait(lock_t *lock) noexcept nogil
cdef bint batch_enter(lock_t *lock) noexcept
cdef void batch_leave(lock_t *lock) noexcept nogil

# For tests of debug builds.
cdef void set_rest(bint whether) noexcept nogil         # of threads that end a batch without the GIL
cdef long running_batches() noexcept nogil              # that have let the GIL go, of all caches
cdef unsigned int overtakes_of(const lock_t *lock) noexcept nogil


cdef inline void lock_acquire(lock_t *lock) noexcept nogil:
    """For a scalar call, which holds the GIL where there is one."""
    if not lock_try(lock):
        lock_wait(lock)
