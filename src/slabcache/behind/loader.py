"""Loads from a store: concurrent misses of one key load it once, and those of several load together.

Who misses keys joins flights (flights.pyx). Each load knows the number of the last write before it began:
what it brings is kept, or refused as stale, by that (behind/arena/unsaved.pxd).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from slabcache.behind import workers
from slabcache.behind.core import WriteBehindCore
from slabcache.behind.division import divide
from slabcache.behind.flights import Flight, Flights
from slabcache.behind.request import Request
from slabcache.behind.waiting import Bell, deadline_after, look_again, persist, seconds_until, wake_all
from slabcache.codec.rows import as_rows, from_rows
from slabcache.errors import ClosedError, own_copy
from slabcache.stores.base import Store

__all__ = ["Flight", "Loader", "Loads"]

Array = np.ndarray[Any, Any]

JOINS_MAX = 3  # attempts to join flights while none lands
CALLS_MAX = 2048  # of the store for one flight that fails: so many failures do not mean single rows

# What a flight has until its rows are there: where its thread finds no memory to say more, it is no success.
_LOST = RuntimeError("the thread that carried out this load could not go on; try again")


class Loads(NamedTuple):
    """What a call waits for: the rows that are missing, their keys, and the flights that bring them."""

    rows: Array
    keys: list[bytes]
    flights: list[Flight]
    later: set[Flight]  # those that had not begun when the call found the rows missing

    def distinct(self) -> list[Flight]:
        """Each flight once."""
        return list(dict.fromkeys(self.flights))


class Loader:
    """Thread safety: every method may be called from any thread.

    Whoever waits first carries out a load, unless it must not wait for as long as that takes: event loops,
    and all calls of a cache with a `load_timeout`. Then threads of ours do. The main thread never waits here,
    see workers.py. No lock is held while Python code runs, see flights.pyx.
    """

    def __init__(self, cache: WriteBehindCore, store: Store, loads: int, load_timeout: float | None) -> None:
        self._cache = weakref.ref(cache)
        self._store = store
        self._key_schema = cache._key_schema
        self._value_schema = cache._value_schema
        self._flights = Flights(loads, Flight(_LOST))
        self._timeout = load_timeout
        self._called: workers.Task | None = None  # the last one that was to carry out the next flight
        self._under_way: dict[Flight, None] = {}
        self._nested: dict[int, int] = {}  # loads that each thread carries out, one in the other
        self._landings: dict[object, Callable[[], object]] = {}  # to be called when a flight has landed
        self._is_closed = False

    def renewed(self, cache: WriteBehindCore) -> Loader:
        """In the child of a fork: the threads that carry out loads are its parent's."""
        return Loader(cache, self._store, self._flights.limit, self._timeout)

    def submit(self, cache: WriteBehindCore, request: Request) -> Loads:
        """Have the missing rows of a request loaded; those that nobody loads yet join the next flight.

        A flight has its rows kept before it lands, and no flight lands between the moment when a row is found
        missing and the one when it joins: so each key is in memory, or on its way, or missed by everybody.
        """
        for attempt in range(JOINS_MAX + 1):
            landings = self._flights.landings if attempt < JOINS_MAX else -1
            rows, keys, as_of = cache._missing(request)
            packed: list[bytes] = np.ascontiguousarray(keys).view(f"V{keys.itemsize}").tolist()
            flights: list[Any] = [None] * len(packed)
            try:
                departures = self._flights.join(packed, flights, as_of, request.keeps, landings)
            except BaseException:
                self._flights.withdraw(packed, flights)
                raise
            if departures >= 0:
                break
        later = {flight for flight in flights if not 0 < flight.departure <= departures}
        return Loads(rows, packed, flights, later)

    def withdraw(self, loads: Loads) -> None:
        """A call that has submitted these no longer waits for them: what nobody wants is not loaded."""
        self._flights.withdraw(loads.keys, loads.flights)

    def hand_over(self, loads: Loads, request: Request) -> None:
        """Give a request what its flights, which are done, have found. What the store has raised for one of
        its rows is raised, in a copy."""
        places = [flight.positions[key] for flight, key in zip(loads.flights, loads.keys, strict=True)]
        for flight, place in zip(loads.flights, places, strict=True):
            if place in flight.failures:
                raise self.own(flight.failures[place])
        numbers = {flight: number for number, flight in enumerate(loads.distinct())}
        of_row, at_place = np.array([numbers[flight] for flight in loads.flights]), np.array(places)
        for flight, number in numbers.items():
            assert flight.values is not None
            assert flight.found is not None
            here = np.flatnonzero(of_row == number)
            at = at_place[here]
            later = flight in loads.later
            request.supply(loads.rows[here], flight.values[at], flight.found[at], flight.as_of, later)

    def is_carrying(self) -> bool:
        """Whether this thread carries out a load."""
        return threading.get_ident() in self._nested

    def deadline(self) -> float | None:
        """Of a call that starts to wait now."""
        return deadline_after(self._timeout)

    def wait(self, flights: list[Flight]) -> None:
        """Return when all flights are done; what one of them raised as a whole is raised, in a copy."""
        deadline = self.deadline()
        if deadline is None or self.is_carrying():
            for flight in flights:
                self._carry(flight)
        for flight in flights:
            self._wait_for(flight, deadline)
            self.check(flight)

    def check(self, flight: Flight) -> None:
        """Raise what a flight that is done has raised as a whole, in a copy."""
        if flight.error is not None:
            raise self.own(flight.error)

    def own(self, error: BaseException) -> BaseException:
        """An exception for one of those who wait for a load that has raised `error`, which is its cause."""
        if isinstance(error, Exception) and not isinstance(error, KeyError):
            return own_copy(error)
        # A KeyError would be taken for an absent row; others are for the thread that carried out the load.
        name = type(self._store).__name__
        told = RuntimeError(
            f"{name}.load_many raised {error!r}"
            if isinstance(error, KeyError)
            else "the thread that carried out this load was interrupted; try again"
        )
        told.__cause__ = error
        return told

    def call_when_done(self, flight: Flight, callback: Callable[[], object]) -> None:
        """Call back from some thread when a flight is done, unless it is told to `forget`; nobody needs to
        wait for the flight."""
        flight.waiters[callback] = callback
        if self._flights.is_done(flight):
            wake_all(flight.waiters)
        elif self.is_carrying() and not flight.departure:
            # An event loop inside a load, which keeps its place until this one has landed.
            if workers.start(partial(self._carry, flight, is_nested=True)) is None:
                self._strand()
        elif not self._start_next():
            self._strand()

    def forget(self, flight: Flight, callback: Callable[[], object]) -> None:
        flight.waiters.pop(callback, None)

    def too_late(self) -> TimeoutError:
        """A call has waited for as long as it may: what it raises."""
        assert self._timeout is not None
        self.give_up_late()
        return TimeoutError(
            f"{type(self._store).__name__}.load_many has not returned within load_timeout, "
            f"{self._timeout:g} seconds"
        )

    def give_up_late(self) -> None:
        """Loads that take longer than a call may wait give their places to the next ones."""
        if self._timeout is None:
            return
        began = time.monotonic() - self._timeout
        late = [flight for flight in self._under_way.copy() if flight.started <= began]
        for flight in late:
            self._flights.give_up(flight)
        if late:
            wake_all(self._landings)
            self._start_next()

    def keys(self) -> Array:
        """What is being loaded, or will be."""
        packed = bytearray().join(self._flights.places.copy())
        return from_rows(self._key_schema, np.frombuffer(packed, self._key_schema.packed))

    def close(self, deadline: float | None) -> None:
        """Wait for the loads under way, but not after the deadline. A load that has not begun fails."""
        self._is_closed = True
        mine = self._nested.get(threading.get_ident(), 0)
        landed = Bell()
        while True:
            self._landings[landed] = landed.ring
            self.give_up_late()
            if self._flights.running <= mine:
                break
            if not landed.wait(self._look_again(deadline)) and seconds_until(deadline) == 0:
                break
        self._landings.pop(landed, None)

    # ---- departures ------------------------------------------------------------------------------------

    def _carry(self, flight: Flight, is_nested: bool = False) -> None:
        """Carry out a flight in this thread, if it is the next one and may depart. A load that uses the cache
        itself does not wait for its own end."""
        if flight.departure or not flight.keys:
            return
        me = threading.get_ident()
        is_nested |= me in self._nested
        self._nested[me] = self._nested.get(me, 0) + 1  # before: what comes in between is nested, too
        following, now = Flight(_LOST), time.monotonic()
        if not self._flights.depart(flight, following, me, now, is_nested):
            self._leave()
            return
        try:
            self._under_way[flight] = None
            self._fly(flight)
        finally:  # whatever there was no memory for
            while not self._flights.is_done(flight):
                persist(partial(self._land, flight))

    def _carry_next(self) -> None:
        self._carry(self._flights.next)

    def _start_next(self) -> bool:
        """Have the next flight carried out by a thread of ours, as soon as it may depart; False when there is
        no such thread: the interpreter ends. One is called, however many ask."""
        called = self._called
        is_called = called is not None and not called.has_begun and not called.has_ended
        if is_called or not self._flights.may_depart():
            return True
        self._called = called = workers.start(self._carry_next)
        return called is not None

    def _look_again(self, deadline: float | None) -> float:
        """When to look for what nobody rings for: loads that take too long, at the latest."""
        soon = look_again(deadline)
        return soon if self._timeout is None else min(soon, time.monotonic() + self._timeout)

    def _strand(self) -> None:
        """There is nobody to carry out the next flight."""
        flight = self._flights.next
        flight.error = RuntimeError("no thread can be started that loads rows; does the interpreter end?")
        me = threading.get_ident()
        self._nested[me] = self._nested.get(me, 0) + 1
        if self._flights.depart(flight, Flight(_LOST), me, time.monotonic(), True):
            self._land(flight)
        else:
            self._leave()

    def _wait_for(self, flight: Flight, deadline: float | None) -> None:
        if flight.carrier == threading.get_ident() and not self._flights.is_done(flight):
            raise RuntimeError(
                "the row is one that this thread is loading: neither load_many nor a finalizer or callback "
                "that runs in it may ask the cache for it"
            )
        done = Bell()
        flight.waiters[done] = done.ring
        try:
            while not self._flights.is_done(flight):
                if not self._start_next():
                    self._carry_next()
                elif not done.wait(self._look_again(deadline)):
                    if seconds_until(deadline) == 0:
                        raise self.too_late()
                    self.give_up_late()
        finally:
            flight.waiters.pop(done, None)

    # ---- a load ----------------------------------------------------------------------------------------

    def _fly(self, flight: Flight) -> None:
        try:
            if self._is_closed:
                raise ClosedError("the cache is closed")
            self._load(flight)
            if self._is_closed:  # whatever the store, which may be closed too, has raised
                raise ClosedError("the cache is closed")
            if not flight.given_up:
                self._keep(flight)
            flight.error = None
        except BaseException as error:
            flight.error = error
            if not isinstance(error, Exception):
                raise  # it is for this thread
        finally:
            self._land(flight)

    def _load(self, flight: Flight) -> None:
        """Fill a flight. Its keys come from callers that know nothing of each other: what the store does not
        load by itself is no one else's error."""
        count = len(flight.keys)
        if not count:
            return
        flight.positions = {key: position for position, key in enumerate(flight.keys)}
        packed = np.frombuffer(bytearray().join(flight.keys), self._key_schema.packed)
        keys = from_rows(self._key_schema, packed)
        flight.values = values = np.zeros(count, self._value_schema.packed)
        flight.found = found = np.zeros(count, np.bool_)

        def load(rows: Array) -> None:
            if self._is_closed:
                raise ClosedError("the cache is closed")
            answer = self._store.load_many(keys[rows])
            values[rows], found[rows] = self._checked(answer, len(rows))

        outcome = divide(count, load, calls_max=CALLS_MAX)
        failures: dict[int, Any] = outcome.failed | dict.fromkeys(outcome.rest, outcome.error)
        flight.failures = failures

    def _keep(self, flight: Flight) -> None:
        """Create the entries of a load."""
        kept = sorted({flight.positions[key] for key in flight.kept.copy()}.difference(flight.failures))
        cache = self._cache()
        if cache is not None and not cache.closed and kept:
            assert flight.values is not None
            assert flight.found is not None
            packed = np.frombuffer(bytearray().join(flight.keys), self._key_schema.packed)
            cache._keep(packed[kept], flight.values[kept], flight.found[kept], flight.as_of)

    def _land(self, flight: Flight) -> None:
        """Tell all who wait, and let the next flight depart."""
        self._flights.land(flight)
        self._under_way.pop(flight, None)
        wake_all(flight.waiters)
        wake_all(self._landings)
        persist(self._leave)
        persist(self._go_on)

    def _leave(self) -> None:
        """This thread carries out one load less."""
        me = threading.get_ident()
        if self._nested.get(me, 0) > 1:
            self._nested[me] -= 1
        else:
            self._nested.pop(me, None)

    def _go_on(self) -> None:
        """Somebody carries out the next flight."""
        if not self._start_next():
            self._carry_next()

    def _checked(self, answer: object, count: int) -> tuple[Array, Array]:
        """What a store has returned, as packed rows and bools."""
        name = type(self._store).__name__
        if isinstance(answer, Coroutine):
            answer.close()
            raise RuntimeError(f"{name} has coroutines for methods, and needs plain ones")
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise RuntimeError(f"{name}.load_many must return values and bools, not {answer!r:.100}")
        values, found = answer
        try:
            rows = as_rows(self._value_schema, values)
        except (TypeError, ValueError, OverflowError) as error:
            raise RuntimeError(f"{name}.load_many has returned other values: {error}") from error
        flags = np.asarray(found)
        if len(rows) != count or flags.shape != (count,) or flags.dtype != np.bool_:
            raise RuntimeError(
                f"{name}.load_many: {count} keys need {count} values and {count} "
                f"bools, not {len(rows)} and {flags.dtype} of shape {flags.shape}"
            )
        return rows, flags
