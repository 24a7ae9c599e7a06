/* One lock per cache, and the gate that keeps fork() out of running batches.
 *
 * GIL builds. Whoever runs Python code holds the GIL, and a scalar call keeps it from its first to its
 * last instruction. So only a batch, which lets the GIL go, has to mark the cache as held; a scalar
 * call looks at that mark and otherwise pays nothing. The mark is set with the GIL held and taken away
 * without it: at interpreter exit a daemon thread never gets the GIL back, and must not keep the cache.
 *
 * Free-threaded builds. The lock is a PyMutex, taken by scalar calls and batches alike.
 *
 * Gate. fork() copies the memory of a batch that another thread is in the middle of, but not the
 * thread: the child would own a cache that is half-way through a change and locked for ever. So a
 * batch that lets the GIL go counts itself in, and fork waits until none runs. While a fork is under way
 * new ones keep the GIL instead of waiting: other at-fork hooks may wait for their thread, or be it.
 * Scalar calls need no gate: fork runs with the GIL held, or with the world stopped.
 *
 * No call here allocates, runs Python code or drops a reference.
 */
#ifndef SLABCACHE_LOCK_H
#define SLABCACHE_LOCK_H

#include <Python.h>
#include <stdatomic.h>

#if defined(_WIN32)
#include <windows.h>
typedef SRWLOCK native_mutex_t;
typedef CONDITION_VARIABLE native_signal_t;
#define NATIVE_MUTEX_INIT SRWLOCK_INIT
#define NATIVE_SIGNAL_INIT CONDITION_VARIABLE_INIT
#define native_mutex_lock(mutex) AcquireSRWLockExclusive(mutex)
#define native_mutex_unlock(mutex) ReleaseSRWLockExclusive(mutex)
#define native_signal_wait(signal, mutex) SleepConditionVariableSRW((signal), (mutex), INFINITE, 0)
#define native_signal_all(signal) WakeAllConditionVariable(signal)
#else
#include <pthread.h>
#include <sched.h>
typedef pthread_mutex_t native_mutex_t;
typedef pthread_cond_t native_signal_t;
#define NATIVE_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define NATIVE_SIGNAL_INIT PTHREAD_COND_INITIALIZER
#define native_mutex_lock(mutex) pthread_mutex_lock(mutex)
#define native_mutex_unlock(mutex) pthread_mutex_unlock(mutex)
#define native_signal_wait(signal, mutex) pthread_cond_wait((signal), (mutex))
#define native_signal_all(signal) pthread_cond_broadcast(signal)
#endif

/* ---- the gate ---------------------------------------------------------------------------------- */

static native_mutex_t gate_mutex = NATIVE_MUTEX_INIT; /* owns the next three; never held for long */
static native_signal_t gate_changed = NATIVE_SIGNAL_INIT;
static long gate_batches = 0; /* batches that run without the GIL, or wait for their cache */
static int gate_closed = 0;   /* a fork is under way */

static inline int gate_try_enter(void)
{
    native_mutex_lock(&gate_mutex);
    int open = !gate_closed;
    gate_batches += open;
    native_mutex_unlock(&gate_mutex);
    return open;
}

static inline void gate_leave(void)
{
    native_mutex_lock(&gate_mutex);
    gate_batches -= 1;
    if (gate_closed && gate_batches == 0)
        native_signal_all(&gate_changed);
    native_mutex_unlock(&gate_mutex);
}

static inline void gate_close(void) /* before fork, with the GIL */
{
    Py_BEGIN_ALLOW_THREADS
    native_mutex_lock(&gate_mutex);
    while (gate_closed) /* another thread is about to fork */
        native_signal_wait(&gate_changed, &gate_mutex);
    gate_closed = 1;
    while (gate_batches)
        native_signal_wait(&gate_changed, &gate_mutex);
    native_mutex_unlock(&gate_mutex);
    Py_END_ALLOW_THREADS
}

static inline void gate_open(void) /* after fork, in the parent */
{
    native_mutex_lock(&gate_mutex);
    gate_closed = 0;
    native_signal_all(&gate_changed);
    native_mutex_unlock(&gate_mutex);
}

/* ---- the lock ---------------------------------------------------------------------------------- */

typedef struct lock_t {
#if defined(Py_GIL_DISABLED)
    PyMutex mutex;
#else
    atomic_int held; /* a batch runs on the cache without the GIL */
    int waiting;     /* calls that wait for it to end; the GIL owns it */
    void (*wait)(struct lock_t *lock); /* lock_wait of the module that made the lock and owns its state */
#endif
    int listed; /* below */
    struct lock_t *next, *previous; /* all locks of the process: the child of a fork resets them */
} lock_t;

static lock_t *lock_list = NULL;

#if defined(Py_GIL_DISABLED)
static PyMutex lock_list_mutex = {0}; /* owns the list; on GIL builds the GIL does */
#define lock_list_acquire() PyMutex_Lock(&lock_list_mutex)
#define lock_list_release() PyMutex_Unlock(&lock_list_mutex)
#define lock_clear(lock) ((lock)->mutex = (PyMutex){0})
#else
#define lock_list_acquire() ((void)0)
#define lock_list_release() ((void)0)
#define lock_clear(lock) (atomic_store(&(lock)->held, 0), (lock)->waiting = 0)
#endif

#if !defined(Py_GIL_DISABLED)
static inline void lock_wait(lock_t *lock);
#endif

static inline void lock_init(lock_t *lock)
{
    lock_clear(lock);
#if !defined(Py_GIL_DISABLED)
    lock->wait = lock_wait;
#endif
    lock_list_acquire();
    lock->previous = NULL;
    lock->next = lock_list;
    if (lock_list)
        lock_list->previous = lock;
    lock_list = lock;
    lock->listed = 1;
    lock_list_release();
}

static inline void lock_destroy(lock_t *lock)
{
    if (!lock->listed) /* its owner failed before lock_init */
        return;
    lock_list_acquire();
    if (lock->next)
        lock->next->previous = lock->previous;
    if (lock->previous)
        lock->previous->next = lock->next;
    else
        lock_list = lock->next;
    lock_list_release();
}

#if defined(Py_GIL_DISABLED)

static inline void lock_reset_all(void) /* in the child */
{
    lock_list_mutex = (PyMutex){0};
    for (lock_t *lock = lock_list; lock; lock = lock->next)
        lock_clear(lock); /* it may just have been handed to a thread that the child does not have */
}

static inline void lock_acquire(lock_t *lock) { PyMutex_Lock(&lock->mutex); }
static inline void lock_release(lock_t *lock) { PyMutex_Unlock(&lock->mutex); }
static inline void lock_acquire_batch(lock_t *lock) { PyMutex_Lock(&lock->mutex); }
static inline void lock_release_batch(lock_t *lock) { PyMutex_Unlock(&lock->mutex); }

#else

static native_mutex_t lock_mutex = NATIVE_MUTEX_INIT; /* owns the fall of `held` */
static native_signal_t lock_released = NATIVE_SIGNAL_INIT;

static inline void lock_reset_all(void) /* in the child */
{
    lock_mutex = (native_mutex_t)NATIVE_MUTEX_INIT;
    lock_released = (native_signal_t)NATIVE_SIGNAL_INIT;
    for (lock_t *lock = lock_list; lock; lock = lock->next)
        lock_clear(lock); /* a thread that the child does not have may still be counted as waiting */
}

static inline void lock_wait(lock_t *lock)
{
    lock->waiting += 1;
    while (atomic_load(&lock->held)) {
        Py_BEGIN_ALLOW_THREADS
        native_mutex_lock(&lock_mutex);
        while (atomic_load(&lock->held))
            native_signal_wait(&lock_released, &lock_mutex);
        native_mutex_unlock(&lock_mutex);
        Py_END_ALLOW_THREADS
    }
    lock->waiting -= 1;
}

static inline void lock_acquire(lock_t *lock)
{
    if (atomic_load_explicit(&lock->held, memory_order_acquire))
        lock->wait(lock);
}

static inline void lock_release(lock_t *lock) { (void)lock; }

static inline void lock_acquire_batch(lock_t *lock)
{
    /* Those who wait go first: a thread that runs batch after batch would starve them. Not for ever: at
       interpreter exit a daemon thread that waits never comes back to say that it no longer does. */
    for (int turns = 0; atomic_load(&lock->held) || (lock->waiting && turns < 100); turns++) {
        if (atomic_load(&lock->held))
            lock_wait(lock);
        else {
            Py_BEGIN_ALLOW_THREADS
#if defined(_WIN32)
            SwitchToThread();
#else
            sched_yield();
#endif
            Py_END_ALLOW_THREADS
        }
    }
    atomic_store(&lock->held, 1);
}

static inline void lock_release_batch(lock_t *lock) /* without the GIL */
{
    native_mutex_lock(&lock_mutex);
    atomic_store(&lock->held, 0);
    native_signal_all(&lock_released);
    native_mutex_unlock(&lock_mutex);
}

#endif

/* A batch that lets the GIL go. In this order, so that fork never sees a lock that is held. False, and
   nothing done, while a fork is under way: the batch then has to run like a scalar call. */
static inline int batch_enter(lock_t *lock)
{
    if (!gate_try_enter())
        return 0;
    lock_acquire_batch(lock);
    return 1;
}

static inline void batch_leave(lock_t *lock) /* without the GIL */
{
    lock_release_batch(lock);
    gate_leave();
}

static void gate_reset(void) /* after fork, in the child: it has one thread and no batch */
{
    gate_mutex = (native_mutex_t)NATIVE_MUTEX_INIT;
    gate_changed = (native_signal_t)NATIVE_SIGNAL_INIT;
    gate_batches = 0;
    gate_closed = 0;
    lock_reset_all();
}

static inline int gate_install(void)
/* In the child the reset comes before any hook of Python's; 0, or an error number. */
{
#if defined(_WIN32)
    return 0;
#else
    return pthread_atfork(NULL, NULL, gate_reset);
#endif
}

#endif
