"""A call that may have to wait, as a generator of what it waits for, and how it is run step by step.

`next()` would make a StopIteration of what the generator returns, and there may be no memory for that when
all is done. Nothing is made here: a call that has changed the cache cannot fail any more by this.
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
