"""Clients of a Read States fleet who notice when something is lost, stale or counted twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from measuring.ports import free_port
from read_states.fleet.machine import Fleet
from read_states.fleet.ring import Ring
from read_states.rows import keys_of, open_store
from support.read_states_service import state

CHANNELS = 4  # of each user
MENTIONED_IN = 1000  # the channel of the first mentioner; the next one is that of the next


async def ask(http: aiohttp.ClientSession, method: str, path: str, **body: Any) -> Any:
    """Again and again while nobody serves it.

    A reload of nginx closes connections that are idle, perhaps as a request is on its way: what may be done
    twice is sent again. Mentions may not, and have a new connection each, which is never closed like that.
    """
    while True:
        try:
            async with http.request(method, path, json=body or None) as response:
                if response.status == 200:
                    return await response.json()
                assert response.status == 503, (response.status, await response.text())
                assert response.headers["Retry-After"] == "1"
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if path == "/mentions":
                raise
        await asyncio.sleep(0.02)


class Client:
    """Does its rounds until it is told to stop."""

    rounds = 0
    needs_new_connections = False

    def __init__(self, number: int) -> None:
        self.number = number

    async def live(self, url: str, over: asyncio.Event) -> None:
        connector = aiohttp.TCPConnector(force_close=self.needs_new_connections)
        async with aiohttp.ClientSession(url, connector=connector) as http:
            while not over.is_set():
                await self.round(http)
                self.rounds += 1

    async def round(self, http: aiohttp.ClientSession) -> None:
        raise NotImplementedError


class Reader(Client):
    """A user who acknowledges messages and sees each time all that it has acknowledged so far."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.read = [0] * CHANNELS

    async def round(self, http: aiohttp.ClientSession) -> None:
        channel = self.rounds % CHANNELS
        path = f"/users/{self.number}/channels"
        message = self.rounds + 1
        assert await ask(http, "POST", f"{path}/{channel}/ack", message_id=message) == state(message)
        self.read[channel] = message
        assert await ask(http, "GET", f"{path}/{channel}") == state(message)
        states = await ask(http, "POST", f"{path}:batch", channels=list(range(CHANNELS)))
        assert states["states"] == [state(read) for read in self.read]


class Session(Reader):
    """The same through a session, which is opened again when it is closed."""

    async def live(self, url: str, over: asyncio.Event) -> None:
        async with aiohttp.ClientSession(url) as http:
            while not over.is_set():
                try:
                    async with http.ws_connect(f"/users/{self.number}/session") as session:
                        while not over.is_set() and await self.turn(session):
                            self.rounds += 1
                except aiohttp.WSServerHandshakeError as error:
                    if error.status != 503:
                        raise
                await asyncio.sleep(0.02)

    async def turn(self, session: aiohttp.ClientWebSocketResponse) -> bool:
        channel = self.rounds % CHANNELS
        message = self.rounds + 1
        await session.send_json(
            {"ack": {"channel": channel, "message_id": message}, "read": list(range(CHANNELS))}
        )
        answer = await session.receive()
        if answer.type is not aiohttp.WSMsgType.TEXT:
            assert session.close_code in (1012, 1013), answer  # the instance ends, or serves others now
            return False
        self.read[channel] = message
        assert answer.json()["states"] == [state(message), *map(state, self.read)]
        return True


class Mentioner(Client):
    """Mentions users in a channel of its own, and knows how often each was."""

    needs_new_connections = True

    def __init__(self, number: int, users: list[int]) -> None:
        super().__init__(number)
        self.channel = MENTIONED_IN + number
        self.counted: Counter[int] = Counter()
        self._users = users
        self._random = random.Random(number)

    async def round(self, http: aiohttp.ClientSession) -> None:
        waiting = self._random.sample(self._users, 10)
        seen = waiting[0]
        while waiting:
            answer = await ask(http, "POST", "/mentions", channel=self.channel, users=waiting)
            assert set(answer["refused"]) <= set(waiting)
            self.counted.update(set(waiting) - set(answer["refused"]))
            waiting = answer["refused"]
        there = await ask(http, "GET", f"/users/{seen}/channels/{self.channel}")
        assert there == state(0, self.counted[seen])


class Crowd:
    """Many clients of one gateway, at the same time."""

    def __init__(self, url: str) -> None:
        numbers = random.Random(1)
        readers = [Reader(user) for user in [*range(15), *(numbers.getrandbits(63) for _ in range(15))]]
        sessions = [Session(numbers.getrandbits(63)) for _ in range(8)]
        self.readers: list[Reader] = [*readers, *sessions]
        self.users = [reader.number for reader in self.readers]
        self.mentioners = [Mentioner(number, self.users) for number in range(6)]
        self._over = asyncio.Event()
        self._clients: list[Client] = [*self.readers, *self.mentioners]
        self._lives = [asyncio.create_task(client.live(url, self._over)) for client in self._clients]

    async def go_on(self, rounds: int = 8) -> None:
        """Until each of them has done so many rounds more; what one of them has noticed is raised."""
        aims = [client.rounds + rounds for client in self._clients]
        while any(client.rounds < aim for client, aim in zip(self._clients, aims, strict=True)):
            for life in self._lives:
                if life.done():
                    life.result()
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._over.set()
        await asyncio.gather(*self._lives)

    def abort(self) -> None:
        for life in self._lives:
            life.cancel()

    def check(self, store_url: str) -> None:
        """All that was acknowledged is in the database, once."""
        store, _ = open_store(store_url)
        for reader in self.readers:
            values, _ = store.load_many(keys_of(reader.number, list(range(CHANNELS))))
            assert values["last_message_id"].tolist() == reader.read
        for mentioner in self.mentioners:
            values, _ = store.load_many(keys_of(self.users, mentioner.channel))
            assert values["mention_count"].tolist() == [mentioner.counted[user] for user in self.users]
        store.close()


async def live_through_changes(folder: Path, store: str, *options: str) -> None:
    """Users move to an instance and back, and away from one that they have always had."""
    fleet = Fleet(folder, store, free_port(), "--flush-interval", "3600", *options)
    try:
        await fleet.start(3)
        first = list(fleet.processes)
        crowd = Crowd(f"http://{fleet.gateway.address}")
        try:
            await crowd.go_on()
            changes: list[Callable[[], Any]] = [
                fleet.add,
                lambda: fleet.remove(list(fleet.processes)[-1]),
                fleet.add,
                lambda: fleet.remove(first[0]),
            ]
            for change in changes:
                before = Ring(fleet.processes)
                await change()
                after = Ring(fleet.processes)
                assert any(before.owner(user) != after.owner(user) for user in crowd.users)
                await crowd.go_on()
            for row in await fleet.status():
                assert (row["ring"], row["coming"]) == (after.instances, None)
            await crowd.stop()
        finally:
            crowd.abort()
    finally:
        saved = await fleet.stop()
    assert saved
    crowd.check(store)
