"""An instance of a fleet: it serves its own users alone, passes mentions on, and hands users over.

Whoever asks for a user of another instance is told 503 and when to come back, not 421: for a moment during a
change nobody serves that user, and all that a client has to know is that the same request will do soon.

What clients use stands beside what the fleet uses, `/fleet/...`, which the gateway does not pass on:

    POST /fleet/mentions    as /mentions, for users of this instance alone
    POST /fleet/prepare     step one of a change: hand over the users that move away
    POST /fleet/commit      step two: the new ring holds
    POST /fleet/abandon     or it does not
    GET  /fleet/status
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.routing import Route

from read_states.app import (
    CrowdedError,
    FailureError,
    RefusalError,
    Service,
    UnavailableError,
    body_of,
    endpoint,
)
from read_states.bodies import Mention, ReadState, Refused
from read_states.fleet.ring import Ring
from read_states.states import SlabStates

__all__ = ["Change", "Member", "Rings", "Status"]

FLUSH_WITHIN = 30.0  # seconds; a change for which the database is too slow is abandoned
CHANGE_MAX = 2**20  # bytes of two rings
PIECE = 4096  # rows of memory looked at in one go

Instances = Annotated[list[str], msgspec.Meta(min_length=1)]


class Rings(msgspec.Struct, frozen=True):
    """The ring that holds, and the one that is to come while a change is under way. An instance reads it from
    a file when it starts, so that one that is started during a change takes part in it."""

    ring: list[str]
    coming: list[str] | None = None

    @staticmethod
    def read(file: Path) -> Rings:
        return msgspec.json.decode(file.read_bytes(), type=Rings)

    def write(self, file: Path) -> None:
        part = file.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(self))
        part.replace(file)


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    old: Instances
    new: Instances


class Status(msgspec.Struct, frozen=True):
    instance: str
    ring: list[str]
    coming: list[str] | None
    records: int
    unsaved: int


class Member:
    """The operations of `states`, for users of this instance; UnavailableError for others."""

    def __init__(self, name: str, rings: Rings, states: SlabStates) -> None:
        self.name = name
        self._ring = Ring(rings.ring)
        self._coming = None if rings.coming is None else Ring(rings.coming)
        self._prepared: Change | None = None  # the last that was to be
        self._states = states
        self._under_way: set[asyncio.Future[None]] = set()
        self._http: aiohttp.ClientSession | None = None

    # ---- what clients ask for --------------------------------------------------------------------------

    async def read(self, user: int, channel: int) -> ReadState:
        with self._serving(user):
            return await self._states.read(user, channel)

    async def read_many(self, user: int, channels: list[int]) -> list[ReadState]:
        with self._serving(user):
            return await self._states.read_many(user, channels)

    async def ack(self, user: int, channel: int, message_id: int) -> ReadState:
        with self._serving(user):
            return await self._states.ack(user, channel, message_id)

    async def pin(self, user: int, channel: int, pin_ts: int) -> ReadState:
        with self._serving(user):
            return await self._states.pin(user, channel, pin_ts)

    async def mention(self, channel: int, users: list[int], count: int) -> list[int]:
        """Count for the users of this instance; the others are refused."""
        served = self._served(users).tolist()
        mine = [user for user, is_mine in zip(users, served, strict=True) if is_mine]
        others = [user for user, is_mine in zip(users, served, strict=True) if not is_mine]
        with self._noted():
            return others + (await self._states.mention(channel, mine, count) if mine else [])

    async def close(self, timeout: float | None = None) -> None:
        if self._http is not None:
            await self._http.close()
        await self._states.close(timeout)

    def _serves(self, user: int) -> bool:
        """During a change, only who is at home here before and after it."""
        return all(ring.owner(user) == self.name for ring in self._rings())

    def _served(self, users: Any) -> NDArray[np.bool_]:
        """The same of many."""
        served: NDArray[np.bool_] = np.all(
            [ring.owned_by(self.name, users) for ring in self._rings()], axis=0
        )
        return served

    def _rings(self) -> list[Ring]:
        return [self._ring] if self._coming is None else [self._ring, self._coming]

    @contextmanager
    def _serving(self, user: int) -> Iterator[None]:
        if not self._serves(user):
            raise UnavailableError(f"user {user} is served by another instance now")
        with self._noted():
            yield

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Whoever prepares a change waits for it."""
        done = asyncio.get_running_loop().create_future()
        self._under_way.add(done)
        try:
            yield
        finally:
            self._under_way.remove(done)
            done.set_result(None)

    # ---- mentions of users of many instances -----------------------------------------------------------

    async def _spread(self, service: Service, mention: Mention) -> Refused:
        """Have each user counted by its owner, in one call an owner; refused is who was not."""
        if service.is_crowded:
            raise CrowdedError("too many connections")
        shares: dict[str, list[int]] = {}
        for user, owner in zip(mention.users, self._ring.owners(mention.users).tolist(), strict=True):
            shares.setdefault(self._ring.instances[owner], []).append(user)
        calls = [
            self._count(service, owner, Mention(mention.channel, users, mention.count))
            for owner, users in shares.items()
        ]
        return Refused([user for refused in await asyncio.gather(*calls) for user in refused])

    async def _count(self, service: Service, owner: str, mention: Mention) -> list[int]:
        if owner == self.name:
            try:
                return await service.run(self.mention(mention.channel, mention.users, mention.count))
            except (FailureError, UnavailableError):
                return mention.users
        if self._http is None:
            # The owner decides how long it tries: who was cut off would not know whether it was counted.
            # One that hangs holds up nobody but itself, and all is over before the gateway gives up.
            limits = aiohttp.ClientTimeout(total=None, connect=2, sock_connect=1, sock_read=5)
            connections = aiohttp.TCPConnector(limit=0, limit_per_host=100)
            self._http = aiohttp.ClientSession(timeout=limits, connector=connections)
        try:
            body = msgspec.json.encode(mention)
            async with self._http.post(f"http://{owner}/fleet/mentions", data=body) as response:
                if response.status == 200:
                    return msgspec.json.decode(await response.read(), type=Refused).refused
        except (aiohttp.ClientError, TimeoutError):
            pass  # one that breaks in the middle may have counted: a mention may come twice, but is not lost
        return mention.users

    # ---- changes of the ring ---------------------------------------------------------------------------

    async def prepare(self, change: Change) -> Status:
        """Serve only who stays; when this returns, all that is known of the others is in the database alone.

        Who comes back later must not be read from rows of today, so these leave memory.
        """
        if self._ring != Ring(change.old):
            raise RefusalError(f"the ring here is {self._ring.instances}")
        self._prepared = change
        await self._flush()  # while all are served, so that little is left for the time when some are not
        if self._prepared is not change:
            raise UnavailableError("the change was abandoned meanwhile")
        self._coming = Ring(change.new)
        if self._under_way:
            await asyncio.wait(list(self._under_way))
        await self._flush()
        if not await asyncio.to_thread(self._drop_others):
            raise UnavailableError("users that move away still have rows that are not saved")
        return self.status()

    async def _flush(self) -> None:
        try:
            await self._states.cache.aflush(FLUSH_WITHIN)
        except TimeoutError as error:
            raise UnavailableError(str(error)) from error

    def _drop_others(self) -> bool:
        """Drop from memory who is not served, also what a load that was given up is about to bring; whether
        all could be dropped."""
        cache = self._states.cache
        all_gone = True
        for keys in cache.scan_keys(PIECE):
            away = keys[~self._served(keys["user_id"])]
            all_gone &= bool(cache.invalidate_many(away).all())
        return all_gone

    async def commit(self, change: Change) -> Status:
        new = Ring(change.new)
        if self._coming is not None and self._coming != new:
            raise RefusalError(f"the ring to come is {self._coming.instances}")
        if self._coming is None and self._ring != new and self.name in change.old:
            raise RefusalError("this change was not prepared here")
        self._ring, self._coming = new, None
        return self.status()

    async def abandon(self, _: Change) -> Status:
        self._coming = self._prepared = None
        return self.status()

    def status(self) -> Status:
        stats = self._states.cache.stats()
        coming = None if self._coming is None else self._coming.instances
        return Status(self.name, self._ring.instances, coming, stats.size, stats.dirty)

    def routes(self, service: Service) -> list[Route]:
        """What a fleet has besides, and in place of, the routes of one instance."""

        async def spread(request: Request) -> Refused:
            return await self._spread(service, await body_of(request, Mention))

        async def prepare(request: Request) -> Status:
            return await self.prepare(await body_of(request, Change, CHANGE_MAX))

        async def commit(request: Request) -> Status:
            return await self.commit(await body_of(request, Change, CHANGE_MAX))

        async def abandon(request: Request) -> Status:
            return await self.abandon(await body_of(request, Change, CHANGE_MAX))

        async def status(_: Request) -> Status:
            return self.status()

        return [
            Route("/mentions", endpoint(spread), methods=["POST"]),
            Route("/fleet/mentions", endpoint(service.mention), methods=["POST"]),
            Route("/fleet/prepare", endpoint(prepare), methods=["POST"]),
            Route("/fleet/commit", endpoint(commit), methods=["POST"]),
            Route("/fleet/abandon", endpoint(abandon), methods=["POST"]),
            Route("/fleet/status", endpoint(status)),
        ]
