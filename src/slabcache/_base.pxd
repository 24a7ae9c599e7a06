"""Table of contents of `_base.pyx`: an arena and its lock, and what all calls on them share."""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from cpython.pystate cimport PyThreadState
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

from slabcache.arena.hash cimport hash_key
from slabcache.arena.header cimport KEY_SIZE_MAX, counters_t, header_t, seed_t, shape_t, slot_t
from slabcache.arena.check cimport CHECK_OK, check_t
from slabcache.machine.lock cimport lock_acquire, lock_release, lock_t
from slabcache.machine.native cimport DEBUG
from slabcache.codec.record cimport Schema, schema_encode
from slabcache.arena.slab cimport rows_t, slab_t


cdef extern from "Python.h":
    void Py_FatalError(const char *message)


cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        PyTypeObject *array_type, cnp.PyArray_Descr *dtype, int dimensions, cnp.npy_intp *shape,
        cnp.npy_intp *strides, void *data, int flags, PyObject *parent
    )


cdef inline cnp.ndarray empty_rows(object dtype, cnp.npy_intp rows):
    """A new array, whose memory is that of an array of bytes: for memory of its own, numpy looks through the
    fields of a structured dtype for references each time, which takes longer than a small batch."""
    cdef cnp.npy_intp size = rows * cnp.PyDataType_ELSIZE(<cnp.dtype>dtype)
    cdef cnp.ndarray memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    cdef cnp.ndarray array
    Py_INCREF(dtype)            # PyArray_NewFromDescr steals it
    array = PyArray_NewFromDescr(
        <PyTypeObject *>cnp.ndarray, <cnp.PyArray_Descr *>dtype, 1, &rows, NULL, cnp.PyArray_DATA(memory),
        cnp.NPY_ARRAY_WRITEABLE, NULL
    )
    cnp.set_array_base(array, memory)
    return array


cdef inline void shorten(cnp.ndarray rows, cnp.npy_intp count) noexcept:
    """Have a new array of rows, which nobody else has seen, end after `count` of them: a view might fail."""
    cnp.PyArray_DIMS(rows)[0] = count


cdef inline bint is_packed(Schema schema) noexcept:
    """Whether packed rows have the user's dtype."""
    return schema.packed is schema.dtype


cdef enum:
    SCRATCH_SIZE = 256          # bytes of a value that a scalar call keeps on the stack
    BATCH_ROWS = 256            # from so many rows on a batch lets the GIL go
    CHECKED_CAPACITY = 64       # debug builds check caches up to this size after each change


cdef inline bytes scratch(Py_ssize_t size, char *small, char **data):
    """Have `data` point to memory for a value: `small`, on the stack, or the bytes that are returned."""
    cdef bytes large = None if size <= SCRATCH_SIZE else PyBytes_FromStringAndSize(NULL, size)
    data[0] = small if large is None else PyBytes_AS_STRING(large)
    return large


cdef class Evicted:
    """Room for rows that a call evicts, made before it evicts them: afterwards there may be no memory."""

    cdef rows_t rows
    cdef readonly object keys, values       # of the users' dtypes; once finished they end with the last row
    cdef cnp.ndarray packed_keys, packed_values
    cdef Schema key_schema, value_schema
    cdef tuple both
    cdef bint finished

    cdef tuple finish(self)


cdef inline rows_t *evicted_rows(Evicted evicted) noexcept:
    """Where they go; NULL when nobody wants them."""
    return NULL if evicted is None else &evicted.rows


cdef Evicted new_evicted(Schema key_schema, Schema value_schema, cnp.npy_intp rows)
cdef header_t *new_arena(const shape_t *shape, const seed_t *seed) except NULL


cdef class Typed:
    cdef readonly Schema _key_schema
    cdef readonly Schema _value_schema


cdef class SlabBase(Typed):
    cdef slab_t slab            # the arena; owned; header is NULL until __init__ has run
    cdef bint initialised       # it has run; `slab` is for those that hold the lock
    cdef lock_t lock            # owns the arena and `base`
    cdef seed_t seed            # of the arena and of those that resize puts in its place
    cdef counters_t base        # counters at the last reset_stats
    cdef object __weakref__

    cdef int draw_seed(self) except -1
    cdef int adopt(self, header_t *header, Schema key_schema, Schema value_schema) except -1
    cdef int ready(self) except -1
    cdef int usable(self) except -1
    cdef uint64_t object_size(self) noexcept
    cdef check_t walk(self, slot_t *culprit) noexcept nogil
    cdef uint64_t size(self) noexcept
    # How batches lock, see machine/lock.pxd.
    cdef PyThreadState *enter(self, uint64_t rows) noexcept
    cdef void leave(self, PyThreadState *state) noexcept


cdef class SlabIterator:
    cdef SlabBase cache
    cdef uint64_t version       # of the cache at the start
    cdef slot_t slot            # to yield next; NIL at the end
    cdef uint64_t left          # entries not yet yielded
    cdef bint backward, with_key, with_value
    cdef bint exhausted         # it has said so; changes are no error from then on


cdef struct key_t:              # of a scalar call
    uint64_t hash
    char packed[KEY_SIZE_MAX]


cdef inline int encode_key(SlabBase self, object key, key_t *target) except -1:
    """Pack and hash a key: before the lock is taken, as that may run code of the key's."""
    schema_encode(self._key_schema, key, target.packed)
    target.hash = hash_key(&self.seed, target.packed, self._key_schema.size)
    return 0


cdef inline slab_t *acquire(SlabBase self, uint64_t hash) noexcept:
    """Lock the arena that has the keys of a hash, for a scalar call; the view of it. There is one arena."""
    lock_acquire(&self.lock)
    return &self.slab


cdef inline void release(SlabBase self) noexcept:
    """Release the lock after a scalar call or a small batch."""
    cdef slot_t culprit
    if DEBUG and self.slab.header.capacity <= CHECKED_CAPACITY:
        if self.walk(&culprit) != CHECK_OK:
            Py_FatalError("slabcache: an invariant is broken")
    lock_release(&self.lock)
