"""The calls of a cache in front of a store that may have to wait: as generators, and run by blocking.

A generator yields what it waits for, a load or room, and goes on once it is there. `Calls` runs them by
blocking, `AsyncCalls` (aio.py) in an event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, TypeVar

import numpy as np

from slabcache.behind import workers
from slabcache.behind.core import ABSENT, DONE, FULL, MISSING, NO_ROOM, OTHER, WriteBehindCore
from slabcache.behind.ending import forget_parent
from slabcache.behind.flusher import Flusher, Room, Saved
from slabcache.behind.loader import Flight, Loader
from slabcache.behind.request import CHANGE, CREATE, READ, Request
from slabcache.behind.steps import Call
from slabcache.behind.waiting import deadline_after, seconds_until
from slabcache.codec.rows import as_deltas, as_rows, from_rows, out_array, write_rows
from slabcache.errors import BackpressureError, ClosedError, SumOverflowError
from slabcache.machine.lock import forks
from slabcache.stores.base import Store

__all__ = ["NO_DEFAULT", "Calls", "Need", "Steps"]

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")
NO_DEFAULT: Any = object()
_LOOK_AGAIN = 0.1  # seconds at least, while room is kept for another write

Need = list[Flight] | Room | Saved | None  # what a call waits for; None: it is about to do more than look
Steps = Generator[Need, None, Result]


class Calls(WriteBehindCore):
    """What the calls of `WriteBehindCache` do, in steps."""

    store: Store
    _loader: Loader
    _flusher: Flusher
    _patience: float | None  # seconds that a write waits for room
    _exit_timeout: float  # seconds that leaving the interpreter waits
    _forks: int  # when threads and loads were last renewed
    _closing: threading.RLock  # held by the one who closes
    _closes_store = False  # the one who closes is about to close the store
    _is_over: bool  # it has been closed, and the store too

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

    # ---- flushing and closing --------------------------------------------------------------------------

    def _flushing(self, deadline: float | None) -> Steps[None]:
        self._check_open()
        if not self._forked:
            yield from self._saving(deadline)

    def _saving(self, deadline: float | None) -> Steps[None]:
        yield Saved(time.monotonic_ns(), deadline)

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
        left = 0.0 if self._loader.is_carrying() else seconds_until(deadline)
        if not self._closing.acquire(timeout=-1 if left is None else left):
            if self._loader.is_carrying():
                raise RuntimeError(
                    "another thread closes the cache, and waits for the load that this one carries out"
                )
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
        if not self._is_over and not self._closes_store:
            self._closes_store = True  # which may close the cache
            try:
                self.store.close()
            finally:
                self._closes_store = False
            self._is_over = True
            self._flusher.stop()
            if lost is not None:
                raise lost

    # ---- reading, and changing -------------------------------------------------------------------------

    def _loading(self, request: Request) -> Steps[None]:
        """Have the missing rows of a request loaded."""
        yield None
        loads = self._loader.submit(self, request)
        if not loads.keys:
            return
        try:
            yield loads.distinct()
        except GeneratorExit:  # nobody waits any more
            self._loader.withdraw(loads)
            raise
        self._loader.hand_over(loads, request)

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
            try:  # the change may have been made: a lack of memory is no error of it
                if self._release_room(request) and not self._forked:
                    self._flusher.tell_of_room()
            except MemoryError:  # those who wait look by themselves after a while
                pass

    def _let_go_of_room(self) -> None:
        """For one who may not wait: what is kept for others is there for all."""
        self._release_all_room()
        self._flusher.tell_of_room()

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
        shape = request.shape
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
        self._drive(self._popping(key, NO_DEFAULT))

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
        shape = request.shape
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
        found = request.found.reshape(request.shape)
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
        if default is NO_DEFAULT:
            raise KeyError(key)
        return default


def _is_main_thread() -> bool:
    # `threading.current_thread()` takes a lock of the module where a thread is not known to it.
    return threading.get_ident() == threading.main_thread().ident
