"""The state of all locks, of the gate before fork(), and of forks: only this module compiles lock_state.h."""

import os

cdef extern from "machine/lock_state.h" nogil:
    void state_init "lock_init" (lock_t *lock)
    void state_destroy "lock_destroy" (lock_t *lock)
    void state_wait "lock_wait" (lock_t *lock)
    void state_leave "batch_leave" (lock_t *lock)
    void test_set_rest(bint whether)
    long test_batches()
    unsigned int test_overtakes(const lock_t *lock)

cdef extern from "machine/lock_state.h":
    bint state_enter "batch_enter" (lock_t *lock)
    int state_forks "forks"
    int fork_install()
    void fork_is_by_python(bint whether)


cdef void lock_init(lock_t *lock) noexcept nogil:
    state_init(lock)


cdef void lock_destroy(lock_t *lock) noexcept nogil:
    """Of a lock that may never have been initialised."""
    state_destroy(lock)


cdef void lock_wait(lock_t *lock) noexcept nogil:
    """Until the batch that holds the lock has ended. With the GIL, which is let go meanwhile."""
    state_wait(lock)


cdef bint batch_enter(lock_t *lock) noexcept:
    """False, and nothing done, while a fork is under way: the batch then keeps the GIL."""
    return state_enter(lock)


cdef void batch_leave(lock_t *lock) noexcept nogil:
    state_leave(lock)


cdef void set_rest(bint whether) noexcept nogil:
    test_set_rest(whether)


cdef long running_batches() noexcept nogil:
    return test_batches()


cdef unsigned int overtakes_of(const lock_t *lock) noexcept nogil:
    return test_overtakes(lock)


def forks():
    """Forks between the process that imported slabcache and this one, whoever made them: os.fork() or C."""
    return state_forks


def _before_fork():
    fork_is_by_python(True)


def _after_fork():
    fork_is_by_python(False)


if hasattr(os, "register_at_fork"):
    if fork_install() != 0:
        raise MemoryError("cannot install a handler for fork()")
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
