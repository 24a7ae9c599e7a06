"""The calls of `WriteBehindCache` for asyncio: a hit never leaves the thread of the event loop, and what has
to wait, for a load or for room, never blocks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from slabcache.behind.calls import Calls, Steps
from slabcache.behind.core import ABSENT, NO_ROOM, UNKNOWN
from slabcache.behind.flusher import Room, Saved
from slabcache.behind.loader import Flight, Loader
from slabcache.behind.steps import Call
from slabcache.behind.waiting import deadline_after, look_again, seconds_until
from slabcache.errors import ClosedError

__all__ = ["AsyncCalls"]

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")


class AsyncCalls(Calls):
    """The calls that are awaited; each does what the one of the same name without the `a` does."""

    async def aget(self, key: Any, default: Any = None) -> Any:
        """`get`."""
        value = self._attempt(key, True, True)
        if value is UNKNOWN:
            value = await _run(self, self._reading_one(key, True, True))
        return default if value is ABSENT else value

    async def aget_many(self, keys: Any, *, out: Array | None = None) -> tuple[Array, Array]:
        """`get_many`."""
        return await _run(self, self._getting(keys, out, counted=True, moves=True))

    async def aset(self, key: Any, value: Any) -> None:
        """`cache[key] = value`."""
        if not self._attempt_put(key, value):
            await _run(self, self._putting_one(key, value))

    async def aput_many(self, keys: Any, values: Any, *, return_evicted: bool = False) -> Any:
        """`put_many`."""
        return await _run(self, self._putting(keys, values, return_evicted))

    async def aincrement(self, key: Any, field: str | None = None, by: float = 1) -> Any:
        """`increment`."""
        value = self._attempt_increment(key, field, by)
        if value is UNKNOWN or value is NO_ROOM:
            value = await _run(self, self._incrementing_one(key, field, by))
        if value is ABSENT:
            raise KeyError(key)
        return value

    async def aincrement_many(self, keys: Any, field: str | None = None, by: Any = 1) -> tuple[Array, Array]:
        """`increment_many`."""
        return await _run(self, self._incrementing(keys, field, by))

    async def aflush(self, timeout: float | None = None) -> None:
        """`flush`."""
        await _run(self, self._flushing(deadline_after(timeout)))

    async def aclose(self, timeout: float | None = None) -> None:
        """`close`."""
        deadline = deadline_after(timeout)
        if not self.closed:
            with suppress(ClosedError):  # of the store: `close` says so
                await _run(self, self._flushing(deadline))  # which can be cancelled
        await asyncio.to_thread(self.close, seconds_until(deadline))


async def _run(cache: AsyncCalls, steps: Steps[Result]) -> Result:
    """Run a call, waiting in the event loop."""
    cache._renew()
    call = Call(steps)
    try:
        while call.advance():
            need = call.need
            if isinstance(need, (Room, Saved)):
                if not await _met(cache, need):
                    raise cache._too_late(need)
            elif need is not None:
                deadline = cache._loader.deadline()
                for flight in need:
                    await _arrival(cache._loader, flight, deadline)
        return call.result
    finally:
        call.close()


async def _arrival(loader: Loader, flight: Flight, deadline: float | None) -> None:
    arrived, callback = _signal()
    try:
        while not arrived.done():
            loader.call_when_done(flight, callback)
            await asyncio.wait([arrived], timeout=seconds_until(look_again(deadline)))
            if not arrived.done():
                if seconds_until(deadline) == 0:
                    raise loader.too_late()
                loader.give_up_late()
    finally:
        loader.forget(flight, callback)
    loader.check(flight)


async def _met(cache: AsyncCalls, need: Room | Saved) -> bool:
    met, callback = _signal()
    waiter = cache._flusher.enlist(need, callback)
    try:
        while not met.done():
            await asyncio.wait([met], timeout=seconds_until(look_again(need.end)))
            if met.done() or seconds_until(need.end) == 0:
                break  # the loop may not have got to the callback yet
            cache._flusher.look_at(need)
    finally:
        cache._flusher.dismiss(waiter)
    return waiter.is_met


def _signal() -> tuple[asyncio.Future[None], Callable[[], None]]:
    """A future of the running loop, and what sets it from any thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def arrive() -> None:
        if not future.done():
            future.set_result(None)

    def callback() -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(arrive)

    return future, callback
