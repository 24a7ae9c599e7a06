"""What clients send to exhaust the service: its memory and its log stay bounded, and others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import pytest
import uvicorn

from read_states import limits
from read_states.app import Operations, Service, make_app
from read_states.bodies import ReadState
from read_states.limits import FIELDS_MAX, HEAD_MAX, PIPELINED_MAX, LimitedServer, Requests, Session
from support.read_states_service import Instance, get, hosted, post, running, started, state
from support.sqlite_file import execute

MIB = 2**20
ROOM = 32.0  # MiB that the service may take in addition; without limits each attack takes more
HOST = b"Host: x\r\n"
GET = b"GET /users/1/channels/1 HTTP/1.1\r\n" + HOST
CHUNKED = b"POST /mentions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + b"\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + b64encode(bytes(16))
    + b"\r\n"
)
SESSION = b"GET /users/1/session HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
TEXT, CONTINUATION, PING = 1, 0, 9


def frame(opcode: int, payload: bytes = b"", *, is_last: bool = True) -> bytes:
    """As a client sends it, masked with zeros."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    return bytes([0x80 * is_last | opcode]) + size + bytes(4) + payload


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    store = f"sqlite:{tmp_path_factory.mktemp('attacks')}/states.db"
    with running(store, "--max-connections", "50") as service:
        yield service


def address_of(instance: Instance) -> tuple[str, int]:
    parts = urlsplit(instance.url)
    return str(parts.hostname), int(parts.port or 0)


# ---- memory -----------------------------------------------------------------------------------------


class Attack:
    """Sends as fast as it can, and never reads."""

    def __init__(self, first: bytes, piece: bytes, most: int) -> None:
        self._first, self._piece, self._most = first, piece, most
        self.sent = 0

    async def run(self, address: tuple[str, int]) -> None:
        """Return when all is sent, or the connection was ended."""
        loop = asyncio.get_running_loop()
        with socket.socket() as connection, contextlib.suppress(ConnectionError):
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, self._first)
            while self.sent < self._most:
                await loop.sock_sendall(connection, self._piece)
                self.sent += len(self._piece)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(Attack(GET + b"X: ", b"x" * 65536, 64 * MIB), id="one-header"),
        pytest.param(Attack(GET, b"x:\r\n" * 16384, 16 * MIB), id="small-headers"),
        pytest.param(Attack(b"GET /", b"x" * 65536, 64 * MIB), id="address"),
        pytest.param(Attack(CHUNKED + b"0\r\n", b"x:\r\n" * 16384, 16 * MIB), id="trailers"),
        pytest.param(Attack(CHUNKED + b"0;", b"x" * 65536, 64 * MIB), id="chunk-extension"),
        pytest.param(Attack(b"", b"\r\n" * 32768, 64 * MIB), id="blank-lines"),
        pytest.param(Attack(b"", (GET + b"\r\n") * 1000, 16 * MIB), id="pipelined"),
        pytest.param(Attack(SESSION, frame(PING, bytes(125)) * 500, 96 * MIB), id="pings"),
    ],
)
def test_memory_is_bounded_and_others_are_answered(instance: Instance, attack: Attack) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(instance.url) as others:
            await post(others, "/users/1/channels/1/ack", message_id=5)
            attacking = asyncio.create_task(attack.run(address_of(instance)))
            rounds = sent = 0
            while not attacking.done() and rounds < 50:  # or it has been read no further for so long
                assert await get(others, "/users/1/channels/1") == state(5)
                rounds = rounds + 1 if attack.sent == sent else 0
                sent = attack.sent
                await asyncio.sleep(0.01)
            attacking.cancel()
            await asyncio.wait([attacking])
            assert await get(others, "/users/1/channels/1") == state(5)

    before = instance.memory()
    asyncio.run(main())
    assert instance.memory() - before < ROOM


def test_unfinished_requests_shut_nobody_out(instance: Instance) -> None:
    """There are four times as many as there may be connections, and their deadline is far."""

    async def main() -> None:
        async with aiohttp.ClientSession(instance.url) as others:
            unfinished = []
            for _ in range(200):
                reader, writer = await asyncio.open_connection(*address_of(instance))
                writer.write(GET)
                unfinished.append((asyncio.create_task(reader.read()), writer))
                async with others.get("/healthz", headers={"Connection": "close"}) as answer:
                    assert answer.status == 200
                async with others.get("/users/1/channels/2", headers={"Connection": "close"}) as answer:
                    assert answer.status == 200
            while sum(reading.done() for reading, _ in unfinished) < 150:
                await asyncio.sleep(0.01)
            for reading, writer in unfinished:
                writer.close()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    reading.exception()

    asyncio.run(main())


# ---- limits, one by one -----------------------------------------------------------------------------


class Zeros:
    """Nothing was ever read."""

    async def read(self, user: int, channel: int) -> ReadState:
        return ReadState(channel)

    async def read_many(self, user: int, channels: list[int]) -> list[ReadState]:
        return [ReadState(channel) for channel in channels]


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[LimitedServer, Connection]]:
    """A server in this process, and a connection to it."""
    app = make_app(Service(cast(Operations, Zeros()), (), 100))
    config = uvicorn.Config(app, http=Requests, ws=Session, ws_ping_interval=None, log_config=None)
    server = LimitedServer(config, max_arriving=100)
    async with hosted(server) as address:
        connection = await asyncio.open_connection(*address)
        yield server, connection
        connection[1].close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    (size,) = re.findall(rb"content-length: (\d+)", head.lower()) or [b"0"]
    return int(head.split()[1]), await reader.readexactly(int(size))


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"X: 1\r\n" * (FIELDS_MAX - 1), 200),
        (b"X: 1\r\n" * FIELDS_MAX, 400),
        (b"X: " + b"1" * (HEAD_MAX - 100), 200),
        (b"X: " + b"1" * HEAD_MAX, 400),
        ((b"X" * 200 + b": " + b"1" * 200 + b"\r\n") * 40, 200),
        ((b"X" * 200 + b": " + b"1" * 200 + b"\r\n") * 41, 400),
    ],
)
def test_how_large_a_head_may_be(head: bytes, status: int, in_pieces: bool) -> None:
    async def main() -> None:
        async with serving() as (_, (reader, writer)):
            writer.write(
                b"POST /users/1/channels:batch HTTP/1.1\r\nContent-Length: 60000\r\n" + HOST + b"\r\n"
            )
            writer.write(b'{"channels": [1]}'.ljust(60000))  # which does not count for the next one
            assert (await answer(reader))[0] == 200
            whole = GET + head.removesuffix(b"\r\n") + b"\r\n\r\n"
            for begin in range(0, len(whole), 500 if in_pieces else len(whole)):
                writer.write(whole[begin : begin + (500 if in_pieces else len(whole))])
                await asyncio.sleep(0.001 * in_pieces)
            got, body = await answer(reader)
            assert got == status
            assert status == 200 or b"100 headers, or 16384 bytes" in body

    asyncio.run(main())


def test_requests_ahead_of_answers_are_answered_in_order() -> None:
    async def main() -> None:
        async with serving() as (_, (reader, writer)):
            for first in (1, 101):
                for channel in range(first, first + PIPELINED_MAX + 1):
                    writer.write(b"GET /users/1/channels/%d HTTP/1.1\r\n%s\r\n" % (channel, HOST))
                for channel in range(first, first + PIPELINED_MAX + 1):
                    status, body = await answer(reader)
                    assert (status, b'"last_message_id":%d,' % channel in body) == (200, True)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (GET, b""),
        (GET, b"X: 1\r\n"),
        (GET + b"\r\n", b"\r\n"),
        (GET + b"\r\n", b"G"),
        (b"POST /mentions HTTP/1.1\r\nContent-Length: 1000\r\n" + HOST + b"\r\n", b" "),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 1000\r\n" + HOST + b"\r\n", b" "),
        (b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n" + HOST + b"\r\n", b" "),
    ],
)
def test_a_request_has_a_deadline(monkeypatch: pytest.MonkeyPatch, first: bytes, drip: bytes) -> None:
    async def main() -> None:
        async with serving() as (server, (reader, writer)):
            writer.write(first)
            ended = asyncio.create_task(reader.read())
            while not ended.done():
                writer.write(drip)
                await asyncio.sleep(0.05)
            ended.exception()
            while server.server_state.connections:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(limits, "REQUEST_WITHIN", 0.3)
    asyncio.run(main())


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_who_has_asked_is_not_held_to_the_deadline(end: bytes) -> None:
    """The end of the request may come alone, and the parser may make nothing else of it."""

    async def main() -> None:
        async with serving() as (server, (reader, writer)):
            for _ in range(2):
                writer.write(b"GET /users/1/channels/1 HTTP/1.1\r\n\r\n".removesuffix(end))
                await asyncio.sleep(0.05)
                writer.write(end)
                assert (await answer(reader))[0] == 200
                assert server.state.served == 1
                server.state.end_late(asyncio.get_running_loop().time() + 3600)

    asyncio.run(main())


def test_who_reads_no_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving() as (server, (reader, writer)):
            writer.write(SESSION)
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()
            while server.server_state.connections:
                writer.write(frame(TEXT, b'{"read": [' + b",".join([b"1"] * 1000) + b"]}") * 10)
                await asyncio.sleep(0.05)

    monkeypatch.setattr(limits, "UNREAD_WITHIN", 1.0)
    asyncio.run(main())


# ---- sessions ---------------------------------------------------------------------------------------


async def text_of(reader: asyncio.StreamReader) -> bytes:
    """The payload of the next frame; pongs are passed over."""
    while True:
        opcode, size = await reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2))
        payload = await reader.readexactly(size)
        if opcode & 15 != 10:
            return payload


def test_messages_that_come_together_are_answered_in_order() -> None:
    async def main() -> None:
        async with serving() as (server, (reader, writer)):
            writer.write(SESSION)
            await reader.readuntil(b"\r\n\r\n")
            (session,) = server.server_state.connections
            writer.write(
                b"".join(frame(TEXT, b'{"read": [%d]}' % number) + frame(PING) for number in range(5000))
            )
            for number in range(5000):
                assert b'"last_message_id":%d,' % number in await text_of(reader)
                assert cast(Session, session).queue.qsize() <= 4096 // 20

    asyncio.run(main())


def test_fragments_without_end_are_one_piece_of_memory() -> None:
    async def main() -> None:
        async with serving() as (server, (reader, writer)):
            writer.write(SESSION)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame(TEXT, b'{"read"', is_last=False) + frame(CONTINUATION, is_last=False) * 2000)
            writer.write(frame(CONTINUATION, b": [7", is_last=False) + frame(PING))
            assert (
                await reader.readexactly(2) == b"\x8a\x00"
            )  # the answer to the ping: all before it is parsed
            (session,) = server.server_state.connections
            assert cast(Session, session).frames == [b'{"read": [7']
            writer.write(frame(CONTINUATION, b"]}"))
            assert b'"last_message_id":7,' in await text_of(reader)

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /users/1/session HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + UPGRADE + b"\r\nabc",
        b"GET /users/1/session HTTP/1.1\r\nX: " + b"1" * 9000 + b"\r\n" + HOST + UPGRADE + b"\r\n",
    ],
)
def test_a_handshake_that_is_none_is_refused(request_: bytes) -> None:
    async def main() -> None:
        async with serving() as (server, (reader, writer)):
            writer.write(request_)
            assert (await answer(reader))[0] == 400
            while server.server_state.connections:
                await asyncio.sleep(0.01)

    asyncio.run(main())


# ---- the log ----------------------------------------------------------------------------------------


def said(instance: Instance, what: str) -> list[str]:
    return [line for line in instance.log if what in line]


def times(lines: list[str]) -> int:
    """How often something has happened, by lines that say how many others they stand for."""
    return sum(1 + int((re.findall(r"and (\d+) more like it", line) or [0])[0]) for line in lines)


@pytest.mark.parametrize("cache", ["slabcache", "objects"])
def test_a_damaged_row_does_not_fill_the_log(tmp_path: Path, cache: str) -> None:
    file = tmp_path / "states.db"

    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client:

            async def ask() -> None:
                async with client.get("/users/1/channels/1") as response:
                    assert response.status == 500
                    assert "internal error" in (await response.json())["error"]

            await asyncio.gather(*[ask() for _ in range(400)])
            async with client.ws_connect("/users/1/session") as session:
                await session.send_json({"read": [1]})
                assert (await session.receive()).data == 1011
            async with client.get("/metrics") as response:
                assert "read_states_failed_total 401.0" in await response.text()
            await asyncio.sleep(1.1)  # then one line more
            await ask()
            assert await get(client, "/users/1/channels/2") == state()

    with running(f"sqlite:{file}"):
        pass
    execute(file, "INSERT INTO read_states VALUES (1, 1, 0, -1, 0)")
    begin = time.monotonic()
    with running(f"sqlite:{file}", "--cache", cache) as instance:
        asyncio.run(main(instance.url))
        most = time.monotonic() - begin + 1
    lines = said(instance, "a request has failed")
    assert len(lines) <= most
    assert times(lines) == 402
    assert sum(map(len, instance.log)) < 10_000


def test_what_is_no_http_does_not_fill_the_log(tmp_path: Path) -> None:
    async def main(address: tuple[str, int]) -> None:
        for request in [b"\0\r\n\r\n", GET + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n"] * 100:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            assert (await answer(reader))[0] in (200, 400)
            writer.close()
        for _ in range(100):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(SESSION)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame(TEXT, b"\xff"))
            await reader.read()
            writer.close()

    begin = time.monotonic()
    with started(f"sqlite:{tmp_path}/states.db") as instance:
        asyncio.run(main(address_of(instance)))
        most = time.monotonic() - begin + 1
        assert instance.terminate() == 0
    for what in ("Invalid HTTP request", "Unsupported upgrade", "Invalid UTF-8"):
        assert 0 < len(said(instance, what)) <= most
