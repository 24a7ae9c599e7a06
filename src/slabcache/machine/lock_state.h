/* One lock per cache, and the gate that keeps fork() out of running batches: all state that they share.
 *
 * lock.pyx alone includes this: the module that owns the state. Others call its functions.
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
 * batch that lets the GIL go counts itself in, when it has its cache, and fork waits until none runs. From
 * there on a batch needs neither GIL nor lock to come to its end, so whoever forks may hold what it likes.
 * Handlers of pthread_atfork do that, which each fork() runs: os.fork(), and those made in C.
 *
 * Scalar calls. With a GIL they need no gate: a fork runs with the GIL held, or Python is lost in the child,
 * as a thread holds the GIL there that does not exist. Without one, os.fork() stops the world, and no thread
 * can be stopped inside a change; a fork made in C takes all locks. The hooks of os.fork tell which it is.
 *
 * No call here allocates, runs Python code or drops a reference.
 */
#ifndef SLABCACHE_LOCK_STATE_H
#define SLABCACHE_LOCK_STATE_H

#include <string.h>

#include "machine/lock.h"

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

#if defined(_WIN32) /* which has no fork */

#define gate_try_enter() 1
#define gate_leave() ((void)0)

#else

static native_mutex_t gate_mutex = NATIVE_MUTEX_INIT; /* owns the next three; never held for long */
static native_signal_t gate_changed = NATIVE_SIGNAL_INIT;
static long gate_batches = 0; /* batches that run without the GIL */
static long gate_closed = 0;  /* forks under way */

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

static inline void gate_close(void)
{
    native_mutex_lock(&gate_mutex);
    gate_closed += 1;
    while (gate_batches)
        native_signal_wait(&gate_changed, &gate_mutex);
    native_mutex_unlock(&gate_mutex);
}

static inline void gate_open(void)
{
    native_mutex_lock(&gate_mutex);
    gate_closed -= 1;
    native_mutex_unlock(&gate_mutex);
}

static inline void gate_reset(void) /* in the child: it has one thread and no batch */
{
    gate_mutex = (native_mutex_t)NATIVE_MUTEX_INIT;
    gate_changed = (native_signal_t)NATIVE_SIGNAL_INIT;
    gate_batches = 0;
    gate_closed = 0;
}

#endif

/* ---- the lock ---------------------------------------------------------------------------------- */

static lock_t *lock_list = NULL;

#if defined(Py_GIL_DISABLED)
static PyMutex lock_list_mutex = {0}; /* owns the list; on GIL builds the GIL does */
#define lock_list_acquire() (PyMutex_Lock(&lock_list_mutex), lock_tell_acquired(&lock_list_mutex))
#define lock_list_release() (lock_tell_released(&lock_list_mutex), PyMutex_Unlock(&lock_list_mutex))
#define lock_clear(lock) ((lock)->mutex = (PyMutex){0})
#else
#define lock_list_acquire() ((void)0)
#define lock_list_release() ((void)0)
#define lock_clear(lock)                                                                           \
    (atomic_store(&(lock)->held, 0), (lock)->waiting = 0, (lock)->turn = (lock)->tickets)
#endif

static inline void lock_init(lock_t *lock)
{
    memset(lock, 0, sizeof *lock);
    lock_clear(lock);
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

static inline void lock_wait(lock_t *lock) { (void)lock; }

/* A PyMutex is given to whoever waits for longer than a millisecond: nobody starves. */
static inline void lock_acquire_batch(lock_t *lock) { lock_try(lock); }
static inline void lock_release_batch(lock_t *lock) { lock_release(lock); }

#else

#if PY_VERSION_HEX >= 0x030D0000
#define lock_is_at_exit() Py_IsFinalizing()
#else
#define lock_is_at_exit() _Py_IsFinalizing()
#endif

static native_mutex_t lock_mutex = NATIVE_MUTEX_INIT; /* owns the fall of `held` */
static native_signal_t lock_released = NATIVE_SIGNAL_INIT;

static inline void lock_wait_for_batch(lock_t *lock)
{
    while (atomic_load(&lock->held)) {
        Py_BEGIN_ALLOW_THREADS
        native_mutex_lock(&lock_mutex);
        while (atomic_load(&lock->held))
            native_signal_wait(&lock_released, &lock_mutex);
        native_mutex_unlock(&lock_mutex);
        Py_END_ALLOW_THREADS
    }
}

static inline void lock_wait(lock_t *lock)
{
    lock->waiting += 1;
    lock_wait_for_batch(lock);
    lock->waiting -= 1;
}

static inline void lock_acquire_batch(lock_t *lock)
{
    /* Scalar calls that wait go first, as a thread that runs batch after batch would starve them, and then the
       batches in the order in which they have come, as small ones would starve a large one. All that they
       wait for is the GIL. At interpreter exit a daemon thread that waits never gets it, so it is passed. */
    unsigned ticket = lock->tickets++;
    for (;;) {
        if (atomic_load(&lock->held))
            lock_wait_for_batch(lock);
        else if ((lock->waiting || (int)(lock->turn - ticket) < 0) && !lock_is_at_exit()) {
            Py_BEGIN_ALLOW_THREADS
#if defined(_WIN32)
            SwitchToThread();
#else
            sched_yield();
#endif
            Py_END_ALLOW_THREADS
        } else
            break;
    }
#if defined(SLABCACHE_DEBUG)
    lock->overtakes += lock->batches++ != ticket;
#endif
    lock->turn = ticket + 1;
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

#if defined(SLABCACHE_DEBUG)
static atomic_int batch_rest = 0; /* a test has batches rest before they want the GIL */
#endif

/* A batch that lets the GIL go. False, and nothing done, while a fork is under way: the batch then has to run
   like a scalar call. It takes its cache first: inside the gate a batch must not wait for anything. */
static inline int batch_enter(lock_t *lock)
{
    lock_acquire_batch(lock);
    if (gate_try_enter())
        return 1;
    lock_release_batch(lock);
    return 0;
}

static inline void batch_leave(lock_t *lock) /* without the GIL */
{
    lock_release_batch(lock);
    gate_leave();
#if defined(SLABCACHE_DEBUG) && !defined(_WIN32)
    while (atomic_load(&batch_rest))
        sched_yield();
#endif
}

/* ---- fork -------------------------------------------------------------------------------------- */

static int forks = 0; /* between the first process and this one */

#if defined(_WIN32)

static inline int fork_install(void) { return 0; }

#else

static _Thread_local int fork_by_python = 0; /* in os.fork(), which stops the world where there is no GIL */

static void fork_prepare(void)
{
    gate_close();
#if defined(Py_GIL_DISABLED)
    if (fork_by_python) /* a lock may have been handed to a thread that is stopped before it can use it */
        return;
    PyMutex_Lock(&lock_list_mutex);
    for (lock_t *lock = lock_list; lock; lock = lock->next)
        PyMutex_Lock(&lock->mutex);
#endif
}

static void fork_in_parent(void)
{
#if defined(Py_GIL_DISABLED)
    if (!fork_by_python) {
        for (lock_t *lock = lock_list; lock; lock = lock->next)
            PyMutex_Unlock(&lock->mutex);
        PyMutex_Unlock(&lock_list_mutex);
    }
#endif
    gate_open();
}

static void fork_in_child(void) /* before any hook of Python's */
{
    forks += 1;
    gate_reset();
#if defined(Py_GIL_DISABLED)
    lock_list_mutex = (PyMutex){0};
#else
    lock_mutex = (native_mutex_t)NATIVE_MUTEX_INIT;
    lock_released = (native_signal_t)NATIVE_SIGNAL_INIT;
#endif
    for (lock_t *lock = lock_list; lock; lock = lock->next) {
        lock_clear(lock); /* a thread that the child does not have may hold it, or wait for it */
        lock->forked = 1;
    }
}

static inline int fork_install(void) /* 0, or an error number */
{
    return pthread_atfork(fork_prepare, fork_in_parent, fork_in_child);
}

#endif

static inline void fork_is_by_python(int whether) /* this thread is in os.fork(), or no longer */
{
#if !defined(_WIN32)
    fork_by_python = whether;
#else
    (void)whether;
#endif
}

/* ---- what tests of debug builds look at -------------------------------------------------------- */

static inline void test_set_rest(int whether)
{
#if defined(SLABCACHE_DEBUG)
    atomic_store(&batch_rest, whether);
#else
    (void)whether;
#endif
}

static inline long test_batches(void) /* inside the gate */
{
    long batches = 0;
#if !defined(_WIN32)
    native_mutex_lock(&gate_mutex);
    batches = gate_batches;
    native_mutex_unlock(&gate_mutex);
#endif
    return batches;
}

static inline unsigned test_overtakes(const lock_t *lock)
{
#if defined(SLABCACHE_DEBUG) && !defined(Py_GIL_DISABLED)
    return lock->overtakes;
#else
    (void)lock;
    return 0;
#endif
}

#endif
