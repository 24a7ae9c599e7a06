"""Loads from a store: concurrent misses of one key load it once, and those of several load together."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slabcache import workers
from slabcache.errors import ClosedError, is_refusal
from slabcache.flusher import wait_for
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
        self.keys: dict[bytes, int] = {}  # packed, and how many rows of calls wait for each
        self.positions: dict[bytes, int] = {}  # of the keys, once it has departed
        self.kept: set[bytes] = set()  # keys that become entries in memory
        self.since = -1  # number of the last write before the first of its keys was missed
        self.departed = False
        self.is_wanted = False  # somebody waits who cannot carry it out
        self.carrier = 0  # the thread that carries it out
        self.done = False
        self.values: Array | None = None
        self.found: Array | None = None
        self.error: BaseException | None = None
        self.refused: dict[int, Exception] = {}  # by position: what the store raised for this key alone
        self.callbacks: dict[int, Callable[[], object]] = {}  # by id()


Place = tuple[Flight, bytes]  # where the row of a key will be found


class Loads(NamedTuple):
    """What a call waits for: the rows that are missing, and where each of them will be found."""

    rows: Array
    places: list[Place]
    fresh: set[Flight]  # those that had not begun when the call found the rows missing


class Loader:
    """Thread safety: every method may be called from any thread.

    Whoever waits first carries out a load, but for event loops, which must not be blocked: threads of ours
    do it for these. The main thread never waits here, see workers.py.
    """

    def __init__(self, cache: WriteBehindCache, store: Store) -> None:
        self._cache = weakref.ref(cache)
        self._store = store
        self._key_schema = cache._key_schema
        self._value_schema = cache._value_schema
        self._lock = threading.RLock()  # owns all that follows
        self._changed = threading.Condition(self._lock)
        self._places: dict[bytes, Place] = {}  # of keys that are being loaded, or will be
        self._next = Flight()
        self._carriers: list[int] = []  # threads, one for each load under way
        self._is_closed = False

    def submit(self, cache: WriteBehindCache, request: Request) -> Loads:
        """Have the missing rows of a request loaded; those that nobody loads yet join the next flight.

        What is missing is found with the lock held, and a flight has its rows kept before it lands: so each
        key is in memory, or on its way, or missed by everybody.
        """
        with self._lock:
            rows, keys, since = cache._missing(request)
            packed = np.ascontiguousarray(keys).view(f"V{keys.itemsize}").tolist()
            places = [self._place(key, since) for key in packed]
            if request.keeps:
                for flight, key in places:
                    flight.kept.add(key)
            return Loads(rows, places, {flight for flight, _ in places if not flight.departed})

    def _place(self, key: bytes, since: int) -> Place:
        """Where a key will be found; the next flight takes it if no other does. Needs the lock."""
        place = self._places.get(key)
        if place is None:
            flight = self._next
            flight.since = since if flight.since < 0 else min(flight.since, since)
            place = self._places[key] = flight, key
        place[0].keys[key] = place[0].keys.get(key, 0) + 1
        return place

    def withdraw(self, places: list[Place]) -> None:
        """A call that has submitted these no longer waits for them: what nobody wants is not loaded."""
        with self._lock:
            for flight, key in places:
                if flight.departed:
                    continue
                flight.keys[key] -= 1
                if not flight.keys[key]:
                    del flight.keys[key], self._places[key]
                    flight.kept.discard(key)

    def wait(self, flights: Iterable[Flight]) -> None:
        """Return when all flights are done; what one of them raised as a whole is raised."""
        for flight in flights:
            while not flight.done:
                if self._boards(flight):
                    self._fly(flight)
            if flight.error is not None:
                raise flight.error

    def call_when_done(self, flight: Flight, callback: Callable[[], object]) -> None:
        """Call back from some thread when a flight is done, unless it is told to `forget`; nobody needs to
        wait for the flight."""
        with self._lock:
            is_done = flight.done
            if not is_done:
                flight.callbacks[id(callback)] = callback
                flight.is_wanted = True
                if self._start_next() or flight.departed:
                    return
                self._give_up()
        if is_done:
            callback()
        else:
            self._land(flight)

    def forget(self, flight: Flight, callback: Callable[[], object]) -> None:
        with self._lock:
            flight.callbacks.pop(id(callback), None)

    def keys(self) -> Array:
        """What is being loaded, or will be."""
        with self._lock:
            packed = bytearray().join(self._places)
        return from_rows(self._key_schema, np.frombuffer(packed, self._key_schema.packed))

    def close(self, deadline: float | None) -> None:
        """Wait for the loads under way, but not after the deadline. A load that has not begun fails."""
        me = threading.get_ident()
        with self._lock:
            self._is_closed = True
            wait_for(self._changed, lambda: all(carrier == me for carrier in self._carriers), deadline)
            stranded = self._give_up()
        self._land(stranded)

    # ---- departures; but for the last, all need the lock -----------------------------------------------

    def _may_depart(self, flight: Flight) -> bool:
        """A load that uses the cache itself does not wait for its own end."""
        is_nested = threading.get_ident() in self._carriers
        return flight is self._next and (len(self._carriers) < LOADS or is_nested)

    def _depart(self) -> Flight:
        """The next flight starts; a new one gathers keys."""
        flight, self._next = self._next, Flight()
        flight.departed = True
        flight.positions = {key: position for position, key in enumerate(flight.keys)}
        flight.carrier = threading.get_ident()
        self._carriers.append(flight.carrier)
        return flight

    def _start_next(self) -> bool:
        """Have the next flight carried out by a thread of ours, if it is wanted, as soon as it may depart;
        False when that cannot be: the cache is closed, or the interpreter ends."""
        if self._next.is_wanted and self._is_closed:
            return False
        if self._next.is_wanted and len(self._carriers) < LOADS:
            return workers.start(self._carry)
        return True

    def _give_up(self) -> Flight:
        """There is nobody to carry out the next flight: it lands where it is."""
        flight = self._depart()
        flight.error = (
            ClosedError("the cache is closed")
            if self._is_closed
            else RuntimeError("no thread can be started that loads rows; does the interpreter end?")
        )
        return flight

    def _boards(self, flight: Flight) -> bool:
        """Wait until a flight is done, or this thread is to carry it out."""
        with self._lock:
            if flight.carrier == threading.get_ident():
                raise RuntimeError("load_many asks the cache for a row that it is loading")
            wait_for(self._changed, lambda: flight.done or self._may_depart(flight), None)
            if flight.done:
                return False
            self._depart()
            return True

    # ---- a load ----------------------------------------------------------------------------------------

    def _carry(self) -> None:
        """What a thread of ours does."""
        with self._lock:
            if not self._next.is_wanted or len(self._carriers) >= LOADS:
                return  # another has taken it, or will be followed by it
            flight = self._depart()
        self._fly(flight)

    def _fly(self, flight: Flight) -> None:
        try:
            if self._is_closed:
                raise ClosedError("the cache is closed")
            self._load(flight)
            self._keep(flight)
        except Exception as error:
            flight.error = error
        except BaseException as error:  # is for this thread; the others have only lost their load
            flight.error = RuntimeError("the thread that carried out this load was interrupted; try again")
            flight.error.__cause__ = error
            raise
        finally:
            self._land(flight)

    def _load(self, flight: Flight) -> None:
        """Fill a flight. Its keys come from callers that know nothing of each other: what the store refuses
        to load is found by halving, and no one else's error."""
        count = len(flight.keys)
        if not count:
            return
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
                if isinstance(error, KeyError):  # would be taken for an absent row
                    raise RuntimeError(f"{type(self._store).__name__}.load_many raised {error!r}") from error
                if not is_refusal(error):
                    raise
                if size == 1 or halvings == HALVINGS:
                    flight.refused.update(dict.fromkeys(range(part.start, part.stop), error))
                    continue
                halvings += 1
                middle = part.start + size // 2
                parts += [slice(middle, part.stop), slice(part.start, middle)]
            else:
                flight.values[part], flight.found[part] = self._checked(answer, size)

    def _keep(self, flight: Flight) -> None:
        """Create the entries of a load."""
        kept = sorted({flight.positions[key] for key in flight.kept}.difference(flight.refused))
        cache = self._cache()
        if cache is not None and not cache.closed and kept:
            assert flight.values is not None
            assert flight.found is not None
            packed = np.frombuffer(bytearray().join(flight.keys), self._key_schema.packed)
            cache._keep(packed[kept], flight.values[kept], flight.found[kept], flight.since)

    def _land(self, flight: Flight) -> None:
        with self._lock:
            for key in flight.keys:
                del self._places[key]
            flight.done = True
            flight.carrier = 0
            self._carriers.remove(threading.get_ident())
            self._changed.notify_all()
            self._start_next()
            callbacks = list(flight.callbacks.values())
        for callback in callbacks:
            callback()

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
