"""The lock of a cache and the gate before fork(); `_lock.h` tells how both work.

Scalar calls:  lock_acquire, change the arena, lock_release: the GIL, where there is one, is kept.
Batches:       batch_enter, `with nogil:` change the arena, batch_leave.
"""

cdef extern from "_lock.h" nogil:
    ctypedef struct lock_t:
        pass

    void lock_init(lock_t *lock)
    void lock_destroy(lock_t *lock)


cdef extern from "_lock.h":
    void lock_acquire(lock_t *lock)
    void lock_release(lock_t *lock)
    void batch_enter(lock_t *lock)
    void batch_leave(lock_t *lock)
    void gate_close()
    void gate_open()
    void gate_reset()
