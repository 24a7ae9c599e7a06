"""Which loads are under way, and which keys each of them brings: what the threads of `loader.py` share.

Every method is one step. No Python code runs in it, nothing is made that the collector tracks, and nothing is
dropped that has a finalizer; on free-threaded builds a lock is held, on others the GIL is. So neither another
thread nor a signal handler nor a finalizer, in whatever thread the collector runs it, can see a step half
done, or wait for one that it has interrupted.
"""

cimport cython
from cpython.dict cimport PyDict_Contains, PyDict_DelItem, PyDict_Next, PyDict_SetItem
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object mapping, object key) except? NULL      # borrowed

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
    typedef PyMutex step_t;
    #define step_begin(step) PyMutex_Lock(step)
    #define step_end(step) PyMutex_Unlock(step)
    #else
    typedef char step_t; /* the GIL is held from the first to the last instruction of a step */
    #define step_begin(step) ((void)(step))
    #define step_end(step) ((void)(step))
    #endif
    """
    ctypedef struct step_t:
        pass
    void step_begin(step_t *step)
    void step_end(step_t *step)


cdef enum:
    STRAYS_MAX = 16             # loads given up whose threads the store still keeps, at most


@cython.final
cdef class Flight:
    """The keys of one load, and what it has found once it is done.

    `keys` has for each key, packed, how many rows of calls wait for it, in the order of the load; `kept` has
    those that become entries in memory. `waiters` are called when the flight is done.
    """

    cdef readonly dict keys, kept, waiters
    cdef readonly uint64_t since        # number of the last write before the first of its keys was missed
    cdef readonly uint64_t departure    # the how manieth of all flights that have departed; 0: it has not
    cdef readonly uint64_t carrier      # the thread that carries it out
    cdef readonly bint done, given_up
    cdef readonly double started        # when it departed, of time.monotonic()
    cdef public object positions        # of the keys, once they are loaded
    cdef public object values, found    # packed rows and bools, by position
    cdef public object failures         # by position: what the store raised for this key by itself
    cdef public object error            # of the flight as a whole; None once its rows are there

    def __cinit__(self, error):
        self.keys, self.kept, self.waiters = {}, {}, {}
        self.since = <uint64_t>-1
        self.positions, self.failures = {}, {}
        self.error = error


@cython.final
cdef class Flights:
    """All loads of a cache: the next one, which gathers keys, and those under way, at most `limit`."""

    cdef readonly dict places           # packed key -> the flight that brings it
    cdef Flight gathering
    cdef readonly uint64_t limit, running, strays
    cdef readonly uint64_t departures, landings
    cdef step_t step

    def __cinit__(self, uint64_t limit, Flight first not None):
        self.limit = limit
        self.places = {}
        self.gathering = first

    @property
    def next(self):
        """The flight that gathers keys."""
        step_begin(&self.step)      # `depart` drops it: nobody may be about to take a reference then
        cdef Flight flight = self.gathering
        step_end(&self.step)
        return flight

    def join(self, list keys not None, list flights not None, uint64_t since, bint keeps, int64_t landings):
        """Find for each key the flight that brings it; the next flight takes those that no other does.

        `flights` has as many items and is filled. -1, and nothing done, if a flight has landed since there
        were `landings`, unless that is negative: the keys may not be missing any more. Otherwise how many
        flights have departed before.
        """
        cdef int64_t departures = -1
        if len(flights) != len(keys):
            raise ValueError(f"flights: {len(flights)} items are not the {len(keys)} of keys")
        step_begin(&self.step)
        try:
            if landings < 0 or <uint64_t>landings == self.landings:
                departures = self.departures
                self.gathering.since = min(self.gathering.since, since)
                self.join_all(keys, flights, keeps)
        finally:
            step_end(&self.step)
        return departures

    cdef int join_all(self, list keys, list flights, bint keeps) except -1:
        cdef Py_ssize_t row, waiting
        cdef PyObject *found
        cdef PyObject *count
        cdef Flight flight
        cdef object key
        for row in range(len(keys)):
            key = keys[row]
            found = PyDict_GetItemWithError(self.places, key)
            flight = self.gathering if found is NULL else <Flight>found
            count = PyDict_GetItemWithError(flight.keys, key)
            waiting = 1 if count is NULL else <object>count + 1
            PyDict_SetItem(flight.keys, key, waiting)
            if found is NULL:
                PyDict_SetItem(self.places, key, flight)
            if keeps:
                PyDict_SetItem(flight.kept, key, None)
            flights[row] = flight
        return 0

    def withdraw(self, list keys not None, list flights not None):
        """A call that has joined flights for these keys no longer waits: what nobody wants is not loaded."""
        cdef Py_ssize_t row, waiting
        cdef PyObject *count
        cdef Flight flight
        cdef object key
        step_begin(&self.step)
        try:
            for row in range(min(len(keys), len(flights))):
                key = keys[row]
                if flights[row] is None:
                    continue
                flight = <Flight?>flights[row]
                if flight.departure:
                    continue
                count = PyDict_GetItemWithError(flight.keys, key)
                waiting = 0 if count is NULL else <object>count - 1
                if waiting > 0:
                    PyDict_SetItem(flight.keys, key, waiting)
                elif count is not NULL:
                    PyDict_DelItem(flight.keys, key)
                    self.leave(flight, key)
                    if PyDict_Contains(flight.kept, key) > 0:
                        PyDict_DelItem(flight.kept, key)
        finally:
            step_end(&self.step)

    cdef int leave(self, Flight flight, object key) except -1:
        """A flight no longer brings a key."""
        cdef PyObject *found = PyDict_GetItemWithError(self.places, key)
        if found == <PyObject *>flight:
            PyDict_DelItem(self.places, key)
        return 0

    cdef int leave_all(self, Flight flight) except -1:
        cdef Py_ssize_t position = 0
        cdef PyObject *key
        cdef PyObject *count
        while PyDict_Next(flight.keys, &position, &key, &count):
            self.leave(flight, <object>key)
        return 0

    def may_depart(self):
        """Whether the next flight has keys and finds a place among those under way."""
        step_begin(&self.step)
        cdef bint may = len(self.gathering.keys) and self.running < self.limit and self.strays < STRAYS_MAX
        step_end(&self.step)
        return may

    def depart(
        self, Flight flight not None, Flight following not None, uint64_t carrier, double started, bint nested
    ):
        """Have `carrier` carry out the next flight, if that is `flight` and finds a place among those under
        way; one that is `nested` in another of the same thread needs none. `following` gathers keys from then
        on. Whether it may."""
        cdef bint may
        step_begin(&self.step)
        may = flight is self.gathering and (
            nested or (self.running < self.limit and self.strays < STRAYS_MAX)
        )
        if may:
            self.running += 1
            self.departures += 1
            flight.departure = self.departures
            flight.carrier = carrier
            flight.started = started
            self.gathering = following
        step_end(&self.step)
        return may

    def land(self, Flight flight not None):
        """A flight is done."""
        step_begin(&self.step)
        try:
            if flight.departure and not flight.done:
                if not flight.given_up:
                    self.leave_all(flight)
                flight.done = True
                flight.carrier = 0
                self.running -= not flight.given_up
                self.strays -= flight.given_up
                self.landings += 1
        finally:
            step_end(&self.step)

    def give_up(self, Flight flight not None):
        """Nobody waits any more for a flight that the store keeps for too long: others may depart, and load
        its keys."""
        step_begin(&self.step)
        try:
            if flight.departure and not flight.done and not flight.given_up:
                self.leave_all(flight)
                flight.given_up = True
                self.running -= 1
                self.strays += 1
                self.landings += 1
        finally:
            step_end(&self.step)

    def is_done(self, Flight flight not None):
        """Whether a flight has landed; then what it has found may be read."""
        step_begin(&self.step)
        cdef bint done = flight.done
        step_end(&self.step)
        return done
