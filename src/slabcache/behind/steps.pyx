"""`Call` runs a generator until it wants to wait again, and has what it returned in the end.

`next()` would make a StopIteration of that, and there may be no memory for it. Here nothing is made: a call
that has changed the cache can no longer fail.
"""

cimport cython
from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(PyObject *iterator, PyObject *sent, PyObject **result) except PYGEN_ERROR
    void Py_XDECREF(PyObject *thing)


@cython.final
cdef class Call:
    """`need` is what it waits for, `result` what it has returned."""

    cdef object steps
    cdef readonly object need, result

    def __cinit__(self, steps):
        self.steps = steps

    def advance(self):
        """Go on until it waits again; False when it has returned."""
        cdef PyObject *given = NULL
        cdef PySendResult sent = PyIter_Send(<PyObject *>self.steps, <PyObject *>None, &given)
        if sent == PYGEN_RETURN:
            self.result = <object>given
        else:
            self.need = <object>given
        Py_XDECREF(given)
        return sent == PYGEN_NEXT

    def close(self):
        """Nobody waits for it any more."""
        self.steps.close()
