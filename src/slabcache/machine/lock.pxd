"""The lock of a cache and the gate before fork(); `lock.h` tells how both work.

Scalar calls:  lock_acquire, change the arena, lock_release: the GIL, where there is one, is kept.
Batches:       batch_enter, let the GIL go, change the arena, batch_leave, take the GIL back.

`SlabBase.enter` and `leave` do the latter, by hand, as small batches keep the GIL: Cython does not check
that what stands between them needs no GIL, so it must be calls of `nogil` functions alone. The state
behind the header belongs to one extension module, `_base`: others may acquire and release a lock for scalar
calls, and have those two methods for batches.
"""

cdef extern from "machine/lock.h" nogil:
    ctypedef struct lock_t:
        const bint forked       # this process is a child of the one that made the lock

    ctypedef bint flag_t        # read and set by any thread, with or without the lock

    void lock_init(lock_t *lock)
    void lock_destroy(lock_t *lock)


cdef extern from "machine/lock.h":
    void lock_acquire(lock_t *lock) nogil
    void lock_release(lock_t *lock) nogil
    bint batch_enter(lock_t *lock)
    void batch_leave(lock_t *lock) nogil
    int forks                   # between the first process and this one; that of `_base`
    int fork_install()
    void fork_is_by_python(bint whether)

    void test_set_rest(bint whether)
    long test_batches()
    unsigned int test_overtakes(const lock_t *lock)
