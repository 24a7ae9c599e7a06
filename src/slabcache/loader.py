"""Loads from a store: concurrent misses of one key load it once, and those of several load together."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slabcache.errors import is_refusal
from slabcache.flusher import seconds_until
from slabcache.rows import as_rows, from_rows

if TYPE_CHECKING:
    from slabcache._write_behind import Request
    from slabcache.stores.base import Store
    from slabcache.write_behind import WriteBehindCache

__all__ = ["Flight", "Loader", "Loads"]

Array = np.ndarray[Any, Any]

LOADS = 2  # at the same time; misses that come meanwhile wait for the next one, and share it
HALVINGS = 64  # of the keys of a flight, at most: a store that refuses so often does not mean single rows


class Flight:
    """The keys of one load, and what it has found once it is `done`."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []  # packed
        self.keeps = bytearray()  # whether it becomes an entry in memory, of each key
        self.since = -1  # number of the last write before the first of its keys was missed
        self.departed = False
        self.done = False
        self.values: Array | None = None
        self.found: Array | None = None
        self.error: BaseException | None = None
        self.refused: dict[int, Exception] = {}  # by position: what the store raised for this key alone
        self.callbacks: list[Callable[[], object]] = []


Place = tuple[Flight, int]  # of a key


class Loads(NamedTuple):
    """What a call waits for: the rows that are missing, and where each of them will be found."""

    rows: Array
    places: list[Place]
    fresh: set[Flight]  # those that had not begun when the call found the rows missing


class Loader:
    """Thread safety: every method may be called from any thread. Whoever waits first carries out a load."""

    def __init__(self, cache: WriteBehindCache, store: Store) -> None:
        self._cache = weakref.ref(cache)
        self._store = store
        self._key_schema = cache._key_schema
        self._value_schema = cache._value_schema
        self._changed = threading.Condition()  # owns all that follows
        self._places: dict[bytes, Place] = {}  # of keys that are being loaded, or will be
        self._next = Flight()
        self._running = 0
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, cache: WriteBehindCache, request: Request) -> Loads:
        """Have the missing rows of a request loaded; those that nobody loads yet join the next flight.

        What is missing is found with the lock held, and a flight has its rows kept before it lands: so each
        key is in memory, or on its way, or missed by everybody.
        """
        with self._changed:
            rows, keys, since = cache._missing(request)
            places = []
            for key in np.ascontiguousarray(keys).view(f"V{keys.itemsize}").tolist():
                place = self._places.get(key)
                if place is None:
                    flight = self._next
                    place = self._places[key] = flight, len(flight.keys)
                    flight.keys.append(key)
                    flight.keeps.append(False)
                    flight.since = since if flight.since < 0 else min(flight.since, since)
                if request.keeps:
                    place[0].keeps[place[1]] = True
                places.append(place)
            return Loads(rows, places, {flight for flight, _ in places if not flight.departed})

    def wait(self, flights: Iterable[Flight]) -> None:
        """Return when all flights are done; what one of them raised as a whole is raised."""
        for flight in flights:
            while True:
                with self._changed:
                    while not flight.done and not (flight is self._next and self._running < LOADS):
                        self._changed.wait()
                    if flight.done:
                        break
                    self._depart()
                self._fly(flight)
            if flight.error is not None:
                raise flight.error

    def call_when_done(self, flight: Flight, callback: Callable[[], object]) -> None:
        """Call back from some thread when a flight is done; nobody needs to wait for it."""
        with self._changed:
            if not flight.done:
                flight.callbacks.append(callback)
                self._start_waiting_flight()
                return
        callback()

    def close(self, deadline: float | None) -> None:
        """Wait for the loads under way, but not after the deadline, and end the threads of ours."""
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, seconds_until(deadline))
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    def _depart(self) -> Flight:
        """The next flight starts; a new one gathers keys. Needs the lock."""
        flight, self._next = self._next, Flight()
        flight.departed = True
        self._running += 1
        return flight

    def _start_waiting_flight(self) -> None:
        """Start the next flight in a thread of ours if an event loop waits for it. Needs the lock."""
        if self._next.callbacks and self._running < LOADS:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(LOADS, thread_name_prefix="slabcache-load")
            flight = self._depart()
            try:
                self._threads.submit(self._fly, flight)
            except RuntimeError as error:  # the interpreter is about to end
                flight.error = error
                self._land(flight)

    def _fly(self, flight: Flight) -> None:
        try:
            self._load(flight)
            self._keep(flight)
        except Exception as error:
            flight.error = error
        except BaseException:  # an interrupt is for this thread; the others have only lost their load
            flight.error = RuntimeError("the thread that carried out this load was interrupted; try again")
            raise
        finally:
            self._land(flight)

    def _load(self, flight: Flight) -> None:
        """Fill a flight. Its keys come from callers that know nothing of each other: what the store refuses
        to load is found by halving, and no one else's error."""
        count = len(flight.keys)
        packed = np.frombuffer(bytearray().join(flight.keys), self._key_schema.packed)
        keys = from_rows(self._key_schema, packed)
        flight.values = np.zeros(count, self._value_schema.packed)
        flight.found = np.zeros(count, np.bool_)
        parts = [slice(0, count)]
        halvings = 0
        while parts:
            part = parts.pop()
            size = part.stop - part.start
            try:
                answer = self._store.load_many(keys[part])
            except Exception as error:
                if not is_refusal(error):
                    raise
                if size == 1 or halvings == HALVINGS:
                    flight.refused.update(dict.fromkeys(range(part.start, part.stop), error))
                    continue
                halvings += 1
                middle = part.start + size // 2
                parts += [slice(middle, part.stop), slice(part.start, middle)]
            else:
                flight.values[part], flight.found[part] = self._checked(*answer, size)

    def _keep(self, flight: Flight) -> None:
        """Create the entries of a load."""
        assert flight.values is not None
        assert flight.found is not None
        kept = np.frombuffer(flight.keeps, np.bool_).copy()
        kept[list(flight.refused)] = False
        cache = self._cache()
        if cache is not None and not cache.closed and kept.any():
            packed = np.frombuffer(bytearray().join(flight.keys), self._key_schema.packed)
            cache._keep(packed[kept], flight.values[kept], flight.found[kept], flight.since)

    def _land(self, flight: Flight) -> None:
        with self._changed:
            for key in flight.keys:
                del self._places[key]
            flight.done = True
            self._running -= 1
            self._changed.notify_all()
            self._start_waiting_flight()
        for callback in flight.callbacks:
            callback()

    def _checked(self, values: object, found: object, count: int) -> tuple[Array, Array]:
        """What a store has returned, as packed rows and bools."""
        rows = as_rows(self._value_schema, values)
        flags = np.asarray(found)
        if len(rows) != count or flags.shape != (count,) or flags.dtype != np.bool_:
            raise RuntimeError(
                f"{type(self._store).__name__}.load_many: {count} keys need {count} values and {count} "
                f"bools, not {len(rows)} and {flags.dtype} of shape {flags.shape}"
            )
        return rows, flags
