/* The lock of a cache, and the steps of it that are done in line. lock_state.h tells how it works.
 *
 * No call here allocates, runs Python code or drops a reference.
 */
#ifndef SLABCACHE_LOCK_H
#define SLABCACHE_LOCK_H

#include <Python.h>
#include <stdatomic.h>

typedef atomic_int flag_t; /* read and set by any thread, with or without a lock */

typedef struct lock_t {
#if defined(Py_GIL_DISABLED)
    PyMutex mutex;
#else
    atomic_int held; /* a batch runs on the cache without the GIL */
    int waiting;     /* scalar calls that wait for it to end; the GIL owns it, and what follows */
    unsigned tickets, turn; /* batches that have come, and the one of them that is next */
#if defined(SLABCACHE_DEBUG)
    unsigned batches;  /* that have had the lock */
    unsigned overtakes; /* those that got it before one which had come earlier */
#endif
#endif
    int forked; /* this process is a child of the one that made the lock */
    int listed; /* in the list of all locks, by the links below: a child of a fork resets them */
    struct lock_t *next, *previous;
} lock_t;

/* ThreadSanitizer does not see into the interpreter, whose PyMutex is to it memory like any other. */
#if defined(SLABCACHE_TSAN)
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define lock_tell_acquired(lock) __tsan_acquire(lock)
#define lock_tell_released(lock) __tsan_release(lock)
#else
#define lock_tell_acquired(lock) ((void)0)
#define lock_tell_released(lock) ((void)0)
#endif

#if defined(Py_GIL_DISABLED)

static inline int lock_try(lock_t *lock) /* waits where it has to */
{
    PyMutex_Lock(&lock->mutex);
    lock_tell_acquired(lock);
    return 1;
}

static inline void lock_release(lock_t *lock)
{
    lock_tell_released(lock);
    PyMutex_Unlock(&lock->mutex);
}

#else

static inline int lock_try(lock_t *lock) /* whether no batch holds it; else it is to be waited for */
{
    return !atomic_load_explicit(&lock->held, memory_order_acquire);
}

static inline void lock_release(lock_t *lock) { (void)lock; }

#endif

#endif
