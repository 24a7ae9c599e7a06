"""Table of contents of `_core.pyx`: the extension types around one arena."""

cimport numpy as cnp
from cpython.object cimport PyObject, PyTypeObject
from cpython.pystate cimport PyThreadState
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

from slabcache._arena cimport counters_t, slot_t
from slabcache._hash cimport seed_t
from slabcache._lock cimport lock_t
from slabcache._record cimport Schema
from slabcache._slab cimport rows_t, slab_t


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


cdef enum look_up_t:
    LOOK_UP_GET                 # counted, makes the entry the most recent
    LOOK_UP_PEEK                # changes nothing
    LOOK_UP_POP                 # deletes the entry


cdef class Sink:
    cdef cnp.ndarray keys, values
    cdef rows_t rows


cdef class Typed:
    cdef readonly Schema _key_schema
    cdef readonly Schema _value_schema


cdef class CacheCore(Typed):
    cdef slab_t slab            # the arena; owned; header is NULL until __init__ has run
    cdef lock_t lock            # owns the arena and `base`
    cdef seed_t seed            # of the arena and of those that resize puts in its place
    cdef counters_t base        # counters at the last reset_stats
    cdef readonly object on_evict
    cdef object __weakref__

    cdef int ready(self) except -1
    cdef uint64_t size(self) noexcept
    # Other modules lock through these two, see _lock.pxd.
    cdef PyThreadState *enter(self, uint64_t rows) noexcept
    cdef void leave(self, PyThreadState *state) noexcept

    cdef int put(self, const char *key, const char *value) except -1
    cdef Sink new_sink(self)
    cdef int report_sink(self, Sink sink) except -1
    cdef int report(self, object keys, object values) except -1


cdef class SlabIterator:
    cdef CacheCore cache
    cdef uint64_t version       # of the cache at the start
    cdef slot_t slot            # to yield next; NIL at the end
    cdef uint64_t left          # entries not yet yielded
    cdef bint backward, with_key, with_value
    cdef bint exhausted         # it has said so; changes are no error from then on
