"""The same operations on an OrderedDict of objects, as one would write it without slabcache."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np

from read_states.bodies import ReadState
from read_states.rows import KEY, VALUE
from slabcache import BackpressureError
from slabcache.stores.base import Store

__all__ = ["ObjectStates"]

BATCH = 1000  # rows of one call of the store
COUNT_MAX = 2**32 - 1  # mentions
TICK = 0.1  # seconds between looks for rows that are due

log = logging.getLogger("read_states")
Key = tuple[int, int]


@dataclass(slots=True)
class State:
    last_message_id: int = 0
    mention_count: int = 0
    last_pin_ts: int = 0

    def reply(self) -> ReadState:
        return ReadState(self.last_message_id, self.mention_count, self.last_pin_ts)


class ObjectStates:
    """An LRU cache of objects, read through and written behind. It must be made in a running event loop."""

    def __init__(self, store: Store, capacity: int, max_pending: int, flush_interval: float) -> None:
        self.hits = self.misses = self.evictions = self.flushed_rows = self.refused = 0
        self._store = store
        self._capacity = capacity
        self._max_unsaved = capacity + max_pending
        self._interval = flush_interval
        self._states: OrderedDict[Key, State] = OrderedDict()  # the least recent first
        self._dirty: OrderedDict[Key, tuple[float, State]] = OrderedDict()  # since when; the oldest first
        self._saving: dict[Key, State] = {}  # a batch under way
        self._loads: dict[Key, asyncio.Task[dict[Key, State]]] = {}
        self._flushing = asyncio.create_task(self._flush_for_ever())

    def __len__(self) -> int:
        return len(self._states)

    @property
    def dirty(self) -> int:
        return len(self._dirty) + len(self._saving)

    async def read(self, user: int, channel: int) -> ReadState:
        return (await self._get_many([(user, channel)]))[0].reply()

    async def read_many(self, user: int, channels: list[int]) -> list[ReadState]:
        states = await self._get_many([(user, channel) for channel in channels])
        return [state.reply() for state in states]

    async def ack(self, user: int, channel: int, message_id: int) -> ReadState:
        (state,) = await self._get_many([(user, channel)])
        if message_id > state.last_message_id:
            self._mark((user, channel), state)
            state.last_message_id = message_id
            state.mention_count = 0
        return state.reply()

    async def pin(self, user: int, channel: int, pin_ts: int) -> ReadState:
        (state,) = await self._get_many([(user, channel)])
        if pin_ts > state.last_pin_ts:
            self._mark((user, channel), state)
            state.last_pin_ts = pin_ts
        return state.reply()

    async def mention(self, channel: int, users: list[int], count: int) -> list[int]:
        keys = [(user, channel) for user in users]
        states = await self._get_many(keys)
        if self.dirty + len(keys) > self._max_unsaved:
            return users
        for key, state in zip(keys, states, strict=True):
            if state.mention_count + count <= COUNT_MAX:
                self._mark(key, state)
                state.mention_count += count
        return []

    async def close(self, timeout: float | None = None) -> None:
        self._flushing.cancel()
        with suppress(asyncio.CancelledError):
            await self._flushing
        try:
            async with asyncio.timeout(timeout):
                while self._dirty:
                    try:
                        await self._flush(time.monotonic())
                    except Exception as error:
                        log.warning("the database fails; tried again: %r", error)
                        await asyncio.sleep(TICK)
        except TimeoutError:
            raise TimeoutError(f"{self.dirty} rows are not in the store") from None
        self._store.close()

    # ---- reading through -------------------------------------------------------------------------------

    async def _get_many(self, keys: list[Key]) -> list[State]:
        found = [(key, self._find(key)) for key in keys]
        missing = [key for key, state in found if state is None]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        loaded = await self._load(missing) if missing else {}
        # What is in memory now goes first: it may have been changed, or loaded anew, during the wait.
        return [self._find(key) or self._insert(key, state or loaded[key]) for key, state in found]

    def _find(self, key: Key) -> State | None:
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
            return state
        if key in self._dirty:
            return self._insert(key, self._dirty[key][1])
        if key in self._saving:
            return self._insert(key, self._saving[key])
        return None

    def _insert(self, key: Key, state: State) -> State:
        self._states[key] = state
        if len(self._states) > self._capacity:
            self._states.popitem(last=False)
            self.evictions += 1
        return state

    async def _load(self, keys: list[Key]) -> dict[Key, State]:
        """Keys that nobody loads yet are loaded together; a request that gives up takes no load with it."""
        loop = asyncio.get_running_loop()
        wanted = [key for key in dict.fromkeys(keys) if key not in self._loads]
        if wanted:
            arrival = loop.create_task(self._load_now(wanted))
            # Nobody may be left who asks for it.
            arrival.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._loads.update(dict.fromkeys(wanted, arrival))
        waiting = {self._loads[key] for key in keys}
        arrived = await asyncio.gather(*map(asyncio.shield, waiting))
        return {key: state for states in arrived for key, state in states.items()}

    async def _load_now(self, keys: list[Key]) -> dict[Key, State]:
        try:
            values, _ = await asyncio.to_thread(self._store.load_many, np.array(keys, KEY))
            rows = zip(keys, values.tolist(), strict=True)
            return {key: self._find(key) or self._insert(key, State(*row)) for key, row in rows}
        finally:
            for key in keys:
                del self._loads[key]

    # ---- writing behind --------------------------------------------------------------------------------

    def _mark(self, key: Key, state: State) -> None:
        if key not in self._dirty:
            if self.dirty >= self._max_unsaved:
                raise BackpressureError("the database does not keep up")
            self._dirty[key] = (time.monotonic(), state)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                while await self._flush(time.monotonic() - self._interval):
                    pass
            except Exception as error:
                log.warning("the database fails; rows are kept and tried again: %r", error)

    async def _flush(self, until: float) -> int:
        """Save a batch of what became dirty before; how many rows."""
        due = [key for key, (since, _) in islice(self._dirty.items(), BATCH) if since <= until]
        if not due:
            return 0
        batch = {key: self._dirty.pop(key) for key in due}
        self._saving = {key: state for key, (_, state) in batch.items()}
        values = [
            (state.last_message_id, state.mention_count, state.last_pin_ts) for state in self._saving.values()
        ]
        try:
            await asyncio.to_thread(self._store.save_many, np.array(due, KEY), np.array(values, VALUE))
        except BaseException:
            for key, row in reversed(batch.items()):
                self._dirty.setdefault(key, row)
                self._dirty.move_to_end(key, last=False)
            raise
        finally:
            self._saving = {}
        self.flushed_rows += len(due)
        return len(due)
