"""`WriteBehindCache`: a cache in front of a store, read through and written behind.

Calls that have to wait are generators: they yield what they wait for, a load or room, and go on once it is
there. The calls of this file wait for it by blocking, those of `behind/aio.py` in an event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, MutableMapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from slabcache._base import forks
from slabcache.arguments import seconds, whole
from slabcache.behind import workers
from slabcache.behind.aio import AsyncCalls
from slabcache.behind.core import (
    ABSENT,
    DONE,
    FULL,
    MISSING,
    NO_ROOM,
    OTHER,
    WriteBehindCore,
)
from slabcache.behind.ending import flush_before_others_end, forget_parent
from slabcache.behind.flusher import Flusher, OnRejected, Room, Saved
from slabcache.behind.loader import Flight, Loader
from slabcache.behind.request import CHANGE, CREATE, READ, Request
from slabcache.behind.steps import Call
from slabcache.behind.waiting import deadline_after, seconds_until
from slabcache.codec.rows import as_deltas, as_rows, from_rows, out_array, write_rows
from slabcache.errors import BackpressureError, ClosedError, SumOverflowError
from slabcache.mapping import SlabMapping
from slabcache.stats import Stats
from slabcache.stores.base import Store

__all__ = ["WriteBehindCache", "WriteBehindStats"]

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")
_MISSING: Any = object()
_LOOK_AGAIN = 0.1  # seconds at least, while room is kept for another write

Need = list[Flight] | Room | Saved | None  # what a call waits for; None: it is about to do more than look
Steps = Generator[Need, None, Result]


class WriteBehindStats(NamedTuple):
    """The counts of `Stats`, and how the writing goes.

    `hits` to `capacity` are those of the cache in memory; an entry that is linked back after its eviction
    counts as an insertion. The others are about rows on their way to the store.
    """

    hits: int
    misses: int
    insertions: int
    updates: int
    deletions: int
    evictions: int
    size: int
    capacity: int
    dirty: int  # rows that the store does not have yet, pending ones and deletions included
    pending: int  # of them, those evicted
    failing: int  # of them, those that the store does not take, each by itself; they are tried again
    flushes: int  # calls of the store that succeeded
    flushed_rows: int  # rows that it has confirmed
    flush_errors: int  # attempts that failed
    rejected_rows: int  # rows that it has refused for good
    oldest_dirty_age: float  # seconds since the oldest of the dirty ones became so; 0.0 when there is none
    last_error: BaseException | None  # of the last attempt that failed

    @property
    def hit_ratio(self) -> float:
        """Hits among all look-ups; 0.0 before the first."""
        return Stats(*self[:8]).hit_ratio


class WriteBehindCache(WriteBehindCore, SlabMapping, AsyncCalls):
    """A typed LRU cache in front of a store: what is not in memory is loaded, what is written is saved later.

    Reads see every write that was acknowledged, by any thread, stored or not. A write is acknowledged as soon
    as it is in memory; a thread gives it to the store at most `flush_interval` seconds later, or soon after
    its eviction. No acknowledged write leaves memory before the store has confirmed it. What a crash of the
    process loses is what was written since the last `flush()` and is not in the store yet.

    Parameters
    ----------
    capacity
        Entries at most, besides those that were evicted and are not saved yet; 1 or more, and together with
        `max_pending` at most 2**31 - 1.
    store
        What holds the rows; its dtypes are those of the cache. `close()` closes it.
    flush_interval
        Seconds that a row may be newer in memory than in the store. Many writes of a row within are one.
    flush_rows
        Rows at most that the store gets in one call.
    max_pending
        Evicted rows that may wait for the store; by default a quarter of the capacity.
        `capacity + max_pending` different rows can be unsaved before a write waits.
    backpressure_timeout
        Seconds that a write waits at most; by default as long as it takes.
    default
        The value of rows that the store does not have. Without one they are absent.
    on_rejected
        Called as `on_rejected(keys, values, error)` with arrays of what the store refused for good, by the
        thread that writes; deleted rows have a value that means nothing. By default such rows are logged as
        errors.
    load_timeout
        Seconds that a call waits for a load at most, before TimeoutError; by default as long as it takes. The
        store cannot be interrupted: a load given up goes on in its thread, and others take its place.
    loads
        Loads that run at the same time, at most. Misses that come meanwhile share the next one.
    exit_timeout
        Seconds that leaving the interpreter waits for rows to be saved, if the cache has not been closed.

    Memory: an entry takes what it takes in a `SlabCache`, and half a byte to one (512 KiB at least in all);
    so does a pending one. An unsaved row takes 32 bytes more, which others use once it is saved. `nbytes` is
    what is reserved, with room for all rows being unsaved; resident is what the most of them at a time have
    needed.

    Thread safety: as for `SlabCache`. After `fork()` the child may read, with what was in memory then; its
    writes raise `RuntimeError`, and it writes nothing behind.

    >>> import tempfile
    >>> from slabcache.stores import SQLiteStore
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u4")
    >>> with WriteBehindCache(1000, store, default=0) as counts:
    ...     counts.increment(7), counts.increment(7, by=2)
    (1, 3)
    >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u4")
    >>> with WriteBehindCache(1000, store) as counts:
    ...     counts[7]
    3
    >>> folder.cleanup()
    """

    def __init__(
        self,
        capacity: int,
        store: Store,
        *,
        flush_interval: float = 30.0,
        flush_rows: int = 1000,
        max_pending: int | None = None,
        backpressure_timeout: float | None = None,
        default: Any = None,
        on_rejected: OnRejected | None = None,
        load_timeout: float | None = None,
        loads: int = 2,
        exit_timeout: float = 30.0,
    ) -> None:
        for name in ("key_dtype", "value_dtype", "load_many", "save_many", "delete_many", "close"):
            if not hasattr(store, name):
                raise TypeError(f"store: {type(store).__name__} has no {name}; see slabcache.stores.Store")
        if getattr(store, "closed", False) is True:
            raise ClosedError(
                f"store: this {type(store).__name__} is closed, as a cache closes its store; make a new one"
            )
        if on_rejected is not None and not callable(on_rejected):
            raise TypeError(f"on_rejected must be callable, not {type(on_rejected).__name__}")
        interval = seconds("flush_interval", flush_interval)
        self._patience = (
            None if backpressure_timeout is None else seconds("backpressure_timeout", backpressure_timeout)
        )
        self._exit_timeout = seconds("exit_timeout", exit_timeout)
        patience = None if load_timeout is None else seconds("load_timeout", load_timeout)
        places = whole("loads", loads, 1)
        rows = whole("flush_rows", flush_rows, 1)
        if max_pending is None:
            max_pending = max(int(capacity) // 4, 1) if hasattr(capacity, "__index__") else 1
        pending = whole("max_pending", max_pending, 0)
        self._forks = forks()
        super().__init__(capacity, pending, store.key_dtype, store.value_dtype, default)
        self.store = store
        self._loader = Loader(self, store, places, patience)
        self._closing = threading.RLock()  # held by the one who closes
        self._is_over = False  # it has been closed, and the store too
        forget_parent()
        flusher = Flusher(self, store, interval, rows, on_rejected)
        flusher.start(self._exit_timeout)
        self._flusher = flusher
        if default is not None and hasattr(store, "null_value"):
            packed = self._value_schema.encode_rows([default])
            store.null_value = from_rows(self._value_schema, packed)[0]
        flush_before_others_end()

    # ---- what it is ------------------------------------------------------------------------------------

    def stats(self) -> WriteBehindStats:  # type: ignore[override]
        """Counts since construction or `reset_stats()`, the size, and how the writing goes. O(1)."""
        unsaved, pending, failing, _ = self._unsaved()
        counts = self._flusher.counts
        return WriteBehindStats(
            *self._stats(),
            unsaved,
            pending,
            failing,
            counts.flushes,
            counts.flushed_rows,
            counts.flush_errors,
            counts.rejected_rows,
            self._flusher.oldest(self),
            self._flusher.last_error,
        )

    def reset_stats(self) -> None:
        """Set the counts of `stats()` to zero; the size and what is unsaved stay. O(1)."""
        super().reset_stats()
        self._flusher.reset_counts()

    # ---- one key ---------------------------------------------------------------------------------------

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, written as `default` first where there is none; counted as a look-up."""
        return self._drive(self._setting_default(key, default))

    def update_fields(self, key: Any, /, **fields: Any) -> None:
        """Overwrite some fields of the entry, which is loaded where need be. O(fields)."""
        self._drive(self._updating_fields(key, fields))

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Delete the entry of `key`, in the store too, and return its value, or `default`."""
        return self._drive(self._popping(key, default))

    def popitem(self) -> tuple[Any, Any]:
        """Delete the least recent entry in memory, in the store too, and return it as `(key, value)`."""
        item: tuple[Any, Any] | None = self._delete_least_recent()
        if item is NO_ROOM:
            item = self._drive(self._popping_item())
        if item is None:
            raise KeyError("the cache is empty")
        return item

    def clear(self) -> None:
        """Not supported, as it could mean two things: TypeError, which names them."""
        raise TypeError(
            "clear() of a WriteBehindCache could mean two things: invalidate_all() drops entries from memory "
            "alone; delete_many(keys) deletes rows, in the store too"
        )

    # ---- many keys -------------------------------------------------------------------------------------

    def get_many(self, keys: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """The values of n keys, as in `SlabCache.get_many`; those that are missing are loaded together."""
        return self._drive(self._getting(keys, out, counted=True, moves=True))

    def peek_many(self, keys: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """What `get_many` returns, without counting, changing the order or keeping what was loaded."""
        return self._drive(self._getting(keys, out, counted=False, moves=False))

    def contains_many(self, keys: Any) -> Array:
        """Whether each of n keys has a row, in memory or in the store, or a default."""
        return self._drive(self._getting(keys, None, counted=False, moves=False))[1]

    def touch_many(self, keys: Any) -> Array:
        """Make the entries of n keys the most recent, loading them where need be; whether each has a row."""
        return self._drive(self._getting(keys, None, counted=False, moves=True))[1]

    def put_many(self, keys: Any, values: Any, *, return_evicted: bool = False) -> Any:
        """Write n entries, all or none: as `SlabCache.put_many`.

        Raises
        ------
        BackpressureError
            There was no room for `backpressure_timeout` seconds.
        ValueError
            There are more different keys than can be unsaved.
        """
        return self._drive(self._putting(keys, values, return_evicted))

    def delete_many(self, keys: Any) -> Array:
        """Delete the entries of n keys, in the store too; whether each had a row. All or none."""
        return self._drive(self._deleting(keys))

    def invalidate_many(self, keys: Any) -> Array:
        """Drop the entries of n keys from memory, so that the next use of each asks the store; whether each
        has gone. For rows that somebody else has changed in the store, or is to have from now on.

        An entry that is unsaved stays: `flush()` first. What a load finds that has begun before is not kept.
        O(n).

        >>> import tempfile
        >>> from slabcache.stores import SQLiteStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u8")
        >>> cache = WriteBehindCache(100, store)
        >>> cache[7] = 1
        >>> cache.invalidate_many([7, 8]).tolist()
        [False, True]
        >>> cache.flush()
        >>> cache.invalidate_many([7, 8]).tolist(), len(cache), cache[7]
        ([True, True], 0, 1)
        >>> cache.close()
        >>> folder.cleanup()
        """
        self._check_open()
        request = Request(self, keys, READ)
        self._invalidate(request)
        return request.found.reshape(_shape(keys, request))

    def invalidate_all(self) -> int:
        """Drop all saved entries from memory, so that the next use of each asks the store; how many.

        Unsaved entries stay, as in `invalidate_many`: `flush()` first. O(capacity).

        >>> import tempfile
        >>> from slabcache.stores import SQLiteStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u8")
        >>> with WriteBehindCache(100, store) as cache:
        ...     cache[7] = 1
        ...     cache.flush()
        ...     cache[8] = 2
        ...     cache.invalidate_all(), list(cache), cache[7]
        (1, [8], 1)
        >>> folder.cleanup()
        """
        self._check_open()
        self._outdate_loads()
        return sum(self._invalidate(Request(self, keys, READ)) for keys in self.scan_keys())

    def scan_keys(self, rows: int = 4096) -> Iterator[Array]:
        """The keys that are being loaded, then those in memory, in no order, as arrays of at most `rows`.

        Other threads wait no longer than one array takes, where `snapshot` keeps them waiting for all. The
        cache may change meanwhile: what is in memory all the while is in one array, what comes or goes
        perhaps. A key that is being loaded may come twice. O(capacity).

        >>> import tempfile
        >>> from slabcache.stores import SQLiteStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteStore(folder.name + "/rows.db", table="counts", key="u8", value="u8")
        >>> with WriteBehindCache(100, store) as cache:
        ...     cache.put_many([7, 8, 9], [1, 1, 1])
        ...     [keys.tolist() for keys in cache.scan_keys(2)]
        0
        [[7, 8], [9]]
        >>> folder.cleanup()
        """
        self._check_open()
        step = whole("rows", rows, 1)
        loading = self._loader.keys()
        yield from (loading[start : start + step] for start in range(0, len(loading), step))
        start = 1
        while (keys := self._scan(start, step)) is not None:
            if len(keys):
                yield keys
            start += step

    def increment_many(self, keys: Any, field: str | None = None, by: Any = 1) -> tuple[Array, Array]:
        """Add to a numeric field of n entries, loaded where need be: as `SlabCache.increment_many`."""
        return self._drive(self._incrementing(keys, field, by))

    # ---- the store -------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Return when all that was written before the call is in the store.

        Raises
        ------
        TimeoutError
            It is not after `timeout` seconds; it says how many rows are unsaved, and goes on trying.
        ClosedError
            The store was closed before; it says how many rows are unsaved.
        """
        self._drive(self._flushing(deadline_after(timeout)))

    def close(self, timeout: float | None = None) -> None:
        """Flush, close the store, and refuse all further calls but `stats()`.

        Loads under way are waited for until `timeout` is over; those who asked for them get ClosedError.

        Nothing more happens the second time. Whoever calls it meanwhile waits until the first has ended.

        Raises
        ------
        TimeoutError
            Rows are unsaved after `timeout` seconds. The cache stays open, and goes on trying.
        ClosedError
            The store was closed before the cache; it says how many rows are lost. The cache is closed.
        """
        self._renew()
        self._flusher.check_may_wait()
        deadline = deadline_after(timeout)
        if _is_main_thread():
            workers.run(lambda: self._close_in_turn(deadline))
        else:
            self._close_in_turn(deadline)

    def _close_in_turn(self, deadline: float | None) -> None:
        left = seconds_until(deadline)
        if not self._closing.acquire(timeout=-1 if left is None else left):
            raise TimeoutError("another thread is still closing the cache")
        try:
            self._close_once(deadline)
        finally:
            self._closing.release()

    def _close_once(self, deadline: float | None) -> None:
        """A step may raise; the next call goes on from there."""
        if self._forked:
            self._close()
            return
        lost: ClosedError | None = None
        if not self.closed:
            try:
                self._drive(self._flushing(deadline))
            except ClosedError as error:
                lost = error
            self._close()
        if self._is_over:
            return
        try:
            self._drive(self._saving(deadline))  # writes that came in between
        except ClosedError as error:
            lost = error
        except BaseException:
            self._reopen()
            raise
        self._loader.close(deadline)
        if not self._is_over:
            self.store.close()
            self._is_over = True
            self._flusher.stop()
            if lost is not None:
                raise lost

    def __enter__(self) -> WriteBehindCache:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- how calls run ---------------------------------------------------------------------------------

    def _drive(self, steps: Steps[Result]) -> Result:
        """Run a call, blocking while it waits. The first step changes nothing but the cache itself."""
        self._renew()
        call = Call(steps)
        if not call.advance():
            return call.result
        if _is_main_thread():
            return workers.run(lambda: self._finish(call))
        return self._finish(call)

    def _renew(self) -> None:
        """In the child of a fork: its parent's threads are not here, nor their loads. A fork made in C runs
        no hook of Python's; so calls that may have to wait look whether there was one."""
        if self._forks == forks():
            return
        forget_parent()
        self._flusher.forked()
        self._loader = self._loader.renewed(self)
        self._closing = threading.RLock()
        self._forks = forks()  # last: until then the next call does it all again

    def _finish(self, call: Call[Need, Result]) -> Result:
        """Run a call from its first need on."""
        try:
            while True:
                need = call.need
                if isinstance(need, (Room, Saved)):
                    if not self._flusher.wait(need):
                        raise self._too_late(need)
                elif need is not None:
                    self._loader.wait(need)
                if not call.advance():
                    return call.result
        finally:
            call.close()

    def _too_late(self, need: Room | Saved) -> Exception:
        unsaved = self._unsaved()[0]
        error: Exception
        if self._flusher.store_is_closed:
            error = ClosedError(
                f"the store was closed before its cache, and {unsaved} rows are unsaved; close the cache "
                "alone: it closes its store"
            )
        elif self._is_over:
            error = ClosedError("the cache is closed")
        elif isinstance(need, Saved):
            error = TimeoutError(f"{unsaved} rows are not in the store yet")
        else:
            error = BackpressureError(
                f"{unsaved} rows wait for the store, and there is no room for more; nothing was changed"
            )
        error.__cause__ = self._flusher.failure
        return error

    def _flushing(self, deadline: float | None) -> Steps[None]:
        self._check_open()
        if not self._forked:
            yield from self._saving(deadline)

    def _saving(self, deadline: float | None) -> Steps[None]:
        yield Saved(time.monotonic_ns(), deadline)

    def _loading(self, request: Request) -> Steps[None]:
        """Have the missing rows of a request loaded."""
        yield None
        loads = self._loader.submit(self, request)
        if not loads.keys:
            return
        flights = list(dict.fromkeys(loads.flights))
        try:
            yield flights
        except GeneratorExit:  # nobody waits any more
            self._loader.withdraw(loads)
            raise
        positions = [flight.positions[key] for flight, key in zip(loads.flights, loads.keys, strict=True)]
        if any(flight.failures for flight in flights):
            for flight, position in zip(loads.flights, positions, strict=True):
                if position in flight.failures:
                    raise self._loader.own(flight.failures[position])
        numbers = {flight: number for number, flight in enumerate(flights)}
        which = np.array([numbers[flight] for flight in loads.flights])
        places = np.array(positions)
        for flight, number in numbers.items():
            here = np.flatnonzero(which == number)
            assert flight.values is not None
            assert flight.found is not None
            at = places[here]
            fresh = flight in loads.fresh
            request.supply(loads.rows[here], flight.values[at], flight.found[at], flight.since, fresh)

    def _changing(self, request: Request, attempt: Any) -> Steps[None]:
        """Attempt a change until nothing is missing and there is room."""
        deadline = None
        try:
            while True:
                freed = self._flusher.freed
                status = attempt()
                if status == DONE:
                    return
                if status == MISSING:
                    yield from self._loading(request)
                elif not request.has_first and len(request) > 1:
                    request.find_first()  # the others of a key take no room
                else:
                    self._check_size(request.needed)
                    deadline = deadline or deadline_after(self._patience)
                    yield from self._waiting_for_room(request, freed, deadline)
        finally:
            self._give_up_room(request)

    def _waiting_for_room(self, request: Request, freed: int, deadline: float | None) -> Steps[None]:
        """Until there may be room for a change, which had none when so many rows had been freed."""
        if self._flusher.is_this_thread():
            if request.lacking:
                self._flusher.check_may_wait()
            self._let_go_of_room()
            return
        again = None
        left = self._ask_for_room(request)
        if not request.lacking:
            if left is None:
                return  # nothing is in its way
            again = time.monotonic() + max(left, _LOOK_AGAIN)
        yield Room(freed + max(request.lacking, 1), deadline, again)

    def _check_size(self, distinct: int) -> None:
        if distinct > self._slots:
            raise ValueError(
                f"{distinct} different keys are more than the {self._slots} that can be unsaved; "
                "cut the batch up, or raise capacity or max_pending"
            )

    def _reading(self, request: Request) -> Steps[None]:
        while not self._read(request):
            yield from self._loading(request)

    def _getting(
        self, keys: Any, out: Array | None, *, counted: bool, moves: bool
    ) -> Steps[tuple[Array, Array]]:
        self._check_open()
        request = Request(self, keys, READ, counted, moves)
        shape = _shape(keys, request)
        target = None if out is None else out_array(self._value_schema, out, shape)
        yield from self._reading(request)
        if target is not None:
            write_rows(self._value_schema, request.values.reshape(shape), target)
            return out, request.found.reshape(shape)  # type: ignore[return-value]
        values = from_rows(self._value_schema, request.values)
        return (values, request.found) if shape else (values[0, ...], request.found.reshape(()))

    def _read_one(self, key: Any, counted: bool, moves: bool) -> Any:
        return self._drive(self._reading_one(key, counted, moves))

    def _reading_one(self, key: Any, counted: bool, moves: bool) -> Steps[Any]:
        request = self._request_one(key, READ, counted, moves)
        yield from self._reading(request)
        return self._value_schema.decode_rows(request.values)[0] if request.found[0] else ABSENT

    def _request_one(self, key: Any, purpose: int, counted: bool = False, moves: bool = False) -> Request:
        self._check_open()
        return Request(self, self._key_schema.encode_rows([key]), purpose, counted, moves)

    def _delete_one(self, key: Any) -> None:
        self._drive(self._popping(key, _MISSING))

    def _put_one(self, key: Any, value: Any) -> None:
        self._drive(self._putting_one(key, value))

    def _putting_one(self, key: Any, value: Any) -> Steps[None]:
        rows, value_rows = self._key_schema.encode_rows([key]), self._value_schema.encode_rows([value])
        yield from self._putting_rows(rows, value_rows, False)

    def _putting(self, keys: Any, values: Any, return_evicted: bool) -> Steps[Any]:
        self._check_open()
        rows, value_rows = as_rows(self._key_schema, keys), as_rows(self._value_schema, values)
        if len(rows) != len(value_rows):
            raise ValueError(f"{len(rows)} keys do not match {len(value_rows)} values")
        return (yield from self._putting_rows(rows, value_rows, return_evicted))

    def _putting_rows(self, rows: Array, value_rows: Array, return_evicted: bool) -> Steps[Any]:
        """`put_many` of packed rows: nothing that the caller has given is encoded a second time."""
        self._check_open()
        evicted = self._put(rows, value_rows, None, return_evicted)
        if evicted is not None:
            return evicted
        request = Request(self, rows.copy(), CREATE)
        value_rows = value_rows.copy()  # nobody may change it while this waits

        def attempt() -> int:
            nonlocal evicted
            evicted = self._put(request.keys, value_rows, request, return_evicted)
            return DONE if evicted is not None else FULL

        self._check_size(request.find_first())
        yield from self._changing(request, attempt)
        return evicted

    def _incrementing(self, keys: Any, field: str | None, by: Any) -> Steps[tuple[Array, Array]]:
        self._check_open()
        schema = self._value_schema
        request = Request(self, keys, CHANGE)
        position = schema.number_position_of(field)
        deltas = as_deltas(schema, position, by, len(request))
        results = np.empty(len(request), schema.dtype if field is None else schema.dtype[field])
        shape = _shape(keys, request)
        answer = results.reshape(shape), request.found.reshape(shape)  # now: later there may be no memory
        yield from self._changing(request, lambda: self._increment(request, position, deltas, results))
        if request.done < len(request):
            raise SumOverflowError(schema.label(position), request.done)
        return answer

    def _increment_one(self, key: Any, field: str | None, by: Any) -> Any:
        return self._drive(self._incrementing_one(key, field, by))

    def _incrementing_one(self, key: Any, field: str | None, by: Any) -> Steps[Any]:
        request = self._request_one(key, CHANGE)
        position = self._value_schema.number_position_of(field)
        deltas = as_deltas(self._value_schema, position, [by], 1)
        try:
            yield from self._changing(request, lambda: self._increment_only(request, position, deltas))
        except SumOverflowError as error:
            raise OverflowError(f"{error.field}: the sum with {by} is out of range") from None
        return request.result if request.found[0] else ABSENT

    def _updating_fields(self, key: Any, fields: dict[str, Any]) -> Steps[None]:
        request = self._request_one(key, CHANGE)
        chosen, data = self._value_schema.encode_fields(fields)
        yield from self._changing(request, lambda: self._update_fields(request, chosen, data))
        if not request.found[0]:
            raise KeyError(key)

    def _setting_default(self, key: Any, default: Any) -> Steps[Any]:
        request = self._request_one(key, CHANGE, counted=True)
        value: bytes | None = None
        yield from self._changing(request, lambda: self._set_default(request, value))
        if not request.found[0]:
            # It is looked at only where it is needed. A look-up has been counted.
            rows = self._value_schema.encode_rows([default])
            value, made = rows.tobytes(), self._value_schema.decode_rows(rows)[0]
            request = self._request_one(key, CREATE)
            yield from self._changing(request, lambda: self._set_default(request, value))
            if request.created:
                return made
        return self._value_schema.decode_rows(request.values)[0]

    def _deleting(self, keys: Any) -> Steps[Array]:
        self._check_open()
        request = Request(self, keys, CHANGE)
        found = request.found.reshape(_shape(keys, request))
        yield from self._changing(request, lambda: self._delete(request))
        return found

    def _popping_item(self) -> Steps[Any]:
        request = Request(self, np.zeros(1, self._key_schema.packed), CHANGE)  # of a row, whichever it is
        item: Any = None

        def attempt() -> int:
            nonlocal item
            item = self._delete_least_recent(request)
            return FULL if item is NO_ROOM else DONE

        yield from self._changing(request, attempt)
        return item

    def _popping(self, key: Any, default: Any) -> Steps[Any]:
        request = self._request_one(key, CHANGE)
        rows = np.zeros(1, self._value_schema.packed)
        expected, value = rows.tobytes(), self._value_schema.decode_rows(rows)[0]

        def attempt() -> int:
            nonlocal expected, value
            while (status := self._pop(request, expected)) == OTHER:
                # The result is made before the row is deleted: afterwards there might be no memory for it.
                expected = request.values.tobytes()
                value = self._value_schema.decode_rows(request.values)[0]
            return status

        yield from self._changing(request, attempt)
        if request.found[0]:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    # ---- what it has not -------------------------------------------------------------------------------

    def __copy__(self) -> WriteBehindCache:
        raise TypeError("a WriteBehindCache cannot be copied: both would write to one store; take snapshot()")

    def __deepcopy__(self, memo: object) -> WriteBehindCache:
        return self.__copy__()

    def __reduce__(self) -> Any:
        raise TypeError("a WriteBehindCache cannot be pickled; take snapshot()")


MutableMapping.register(WriteBehindCache)


def _is_main_thread() -> bool:
    # `threading.current_thread()` takes a lock of the module where a thread is not known to it.
    return threading.get_ident() == threading.main_thread().ident


def _shape(keys: Any, request: Request) -> tuple[int, ...]:
    """Of the results: those of a zero-dimensional array are, too."""
    return () if isinstance(keys, (np.ndarray, np.generic)) and keys.ndim == 0 else (len(request),)
