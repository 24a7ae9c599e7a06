"""The operations of the service, on slabcache.

All of them run in one event loop. What is in memory is read and written without a pause, so nobody comes in
between; only a load from the database waits. A write that finds no room, as the database cannot keep up,
raises `BackpressureError` at once: it is for the client to come back.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from read_states.bodies import ReadState
from read_states.rows import ZEROS, keys_of
from slabcache import BackpressureError, SumOverflowError, WriteBehindCache
from slabcache.stores.base import Store

__all__ = ["SlabStates"]


class SlabStates:
    """Read states in memory, read through and written behind."""

    def __init__(self, store: Store, capacity: int, max_pending: int, flush_interval: float) -> None:
        self.cache = WriteBehindCache(
            capacity,
            store,
            max_pending=max_pending,
            flush_interval=flush_interval,
            backpressure_timeout=0,
            default=ZEROS,
            exit_timeout=0,  # `close` has waited before
        )

    @property
    def refused(self) -> int:
        """Rows that the database will never take."""
        return self.cache.stats().rejected_rows

    async def read(self, user: int, channel: int) -> ReadState:
        return ReadState(*await self.cache.aget((user, channel)))

    async def read_many(self, user: int, channels: list[int]) -> list[ReadState]:
        values, _ = await self.cache.aget_many(keys_of(user, channels))
        return [ReadState(*row) for row in values.tolist()]

    async def ack(self, user: int, channel: int, message_id: int) -> ReadState:
        """The user has read up to a message: forward, never back. Nothing of it mentions them any more."""
        state = await self.read(user, channel)
        if message_id > state.last_message_id:
            state = ReadState(message_id, 0, state.last_pin_ts)
            self.cache[user, channel] = (message_id, 0, state.last_pin_ts)
        return state

    async def pin(self, user: int, channel: int, pin_ts: int) -> ReadState:
        """A message was pinned: forward, never back."""
        state = await self.read(user, channel)
        if pin_ts > state.last_pin_ts:
            state = ReadState(state.last_message_id, state.mention_count, pin_ts)
            self.cache[user, channel] = (state.last_message_id, state.mention_count, pin_ts)
        return state

    async def mention(self, channel: int, users: list[int], count: int) -> list[int]:
        """Count mentions of many users; those for whom it could not be done. A count that would pass
        2**32 - 1 stays as it is."""
        field = "mention_count"
        try:
            while users:
                try:
                    await self.cache.aincrement_many(keys_of(users, channel), field, count)
                    users = []
                except SumOverflowError as full:
                    users = users[full.row + 1 :]
        except BackpressureError:
            return users
        except Exception:  # the database is down: those in memory can be counted all the same
            return [
                user for user in users if not at_once(self.cache.aincrement((user, channel), field, count))
            ]
        return []

    async def close(self, timeout: float | None = None) -> None:
        """Flush; TimeoutError says how much is not in the database."""
        await self.cache.aclose(timeout)


def at_once(call: Coroutine[Any, Any, object]) -> bool:
    """Make a call if it need not wait; whether it was made. It runs up to its first wait, and is dropped."""
    try:
        call.send(None)
    except (StopIteration, OverflowError):
        return True
    except Exception:
        return False
    call.close()
    return False
