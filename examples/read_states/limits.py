"""Limits of one connection: the memory, the time and the turns that it takes. uvicorn has none of them.

`Requests` and `Session` are uvicorn's protocols for HTTP and for WebSockets, with these limits:

- A request has a head of at most HEAD_MAX bytes and FIELDS_MAX headers, or is answered with 400.
- A request arrives within REQUEST_WITHIN seconds. Only so many may be arriving: one more ends the oldest.
- At most PIPELINED_MAX requests wait for the answers of earlier ones.
- A session is read no faster than it is answered, and than its answers are read; PIECE bytes at a time.
- Who reads no answers for UNREAD_WITHIN seconds is cut off by the system.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

__all__ = ["HEAD_MAX", "LimitedServer", "Requests", "Session"]

HEAD_MAX = 16 * 1024  # bytes of address, names and values
FIELDS_MAX = 100  # headers: one of a byte is no smaller in memory than one of a hundred
PIPELINED_MAX = 16  # requests
REQUEST_WITHIN = 10.0  # seconds
UNREAD_WITHIN = 20.0  # seconds
PIECE = 4096  # bytes of frames, some 700 at most; then others have their turn
TOO_LARGE = f"The request has more than {FIELDS_MAX} headers, or {HEAD_MAX} bytes of them."
BAD_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class LimitError(Exception):
    """For the parser, from a callback."""


class State(ServerState):
    """The connections of a server."""

    def __init__(self, max_arriving: int) -> None:
        super().__init__()
        self._max_arriving = max_arriving
        self._arriving: dict[Requests, float] = {}  # since when; the oldest first

    @property
    def served(self) -> int:
        """Connections that have sent a whole request, and no part of another."""
        return len(self.connections) - len(self._arriving)

    def begin(self, connection: Requests) -> None:
        """A request is expected from it, or has begun to arrive."""
        if connection not in self._arriving:
            if len(self._arriving) >= self._max_arriving:
                self._end_oldest()
            self._arriving[connection] = connection.loop.time()

    def finish(self, connection: Requests) -> None:
        self._arriving.pop(connection, None)

    def end_late(self, now: float) -> None:
        while self._arriving and next(iter(self._arriving.values())) + REQUEST_WITHIN < now:
            self._end_oldest()

    def _end_oldest(self) -> None:
        connection = next(iter(self._arriving))
        del self._arriving[connection]
        self.connections.discard(connection)  # at once, or it counts as served until it is lost
        connection.transport.abort()


class LimitedServer(uvicorn.Server):
    """A server whose connections have limits, with a configuration that names `Requests` and `Session`."""

    def __init__(self, config: uvicorn.Config, max_arriving: int) -> None:
        super().__init__(config)
        self.server_state = self.state = State(max_arriving)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:  # the connections that it accepts inherit it
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_WITHIN * 1000))

    async def on_tick(self, counter: int) -> bool:
        self.state.end_late(asyncio.get_running_loop().time())
        return await super().on_tick(counter)


class Requests(HttpToolsProtocol):
    """HTTP of one connection."""

    def __init__(self, config: uvicorn.Config, server_state: State, *others: Any, **more: Any) -> None:
        super().__init__(config, server_state, *others, **more)
        self._state = server_state
        self.url, self.headers = b"", []
        self._fed = 0  # bytes, since nothing of a request was missing
        self._kept = 0  # of these, by the parser: the begin of a header
        self._is_whole = False  # nothing of a request is missing
        self._is_silent = False  # the parser has made nothing of what it was fed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._state.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.finish(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        known = len(self.url) + len(self.headers)
        self._is_silent = True
        self._fed += len(data)
        super().data_received(data)
        if self._is_silent and known == len(self.url) + len(self.headers):
            self._kept += len(data)
        else:
            self._kept = 0
            if self._is_whole:
                self._fed = 0
                return
        if not self.transport.is_closing():
            if self._head_is_too_large():
                self.send_400_response(TOO_LARGE)
            self._state.begin(self)

    def _head_is_too_large(self) -> bool:
        """Headers that come after a body count, too."""
        if self._fed <= HEAD_MAX:
            return len(self.headers) > FIELDS_MAX
        fields = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.headers) > FIELDS_MAX or len(self.url) + fields + self._kept > HEAD_MAX

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self.on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer would overtake others
        else:
            super().send_400_response(TOO_LARGE if self._head_is_too_large() else msg)

    # ---- callbacks of the parser; what they raise is answered with 400 --------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_whole = self._is_silent = False

    def on_headers_complete(self) -> None:
        self._is_silent = False
        if self._head_is_too_large():
            raise LimitError(TOO_LARGE)
        if len(self.pipeline) >= PIPELINED_MAX:
            raise LimitError("too many requests are sent ahead of answers")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._is_silent = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_whole = True
        self._is_silent = False
        self._state.finish(self)


class Session(WebSocketsSansIOProtocol):
    """A WebSocket: no more is read while messages wait for the service, or answers for the client."""

    def __init__(self, *others: Any, **more: Any) -> None:
        super().__init__(*others, **more)
        self._unread = bytearray()
        self.read_paused = True  # uvicorn leaves it to us, then: it parses all that it has before it pauses

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self._unread += data
        else:
            super().data_received(data)
            if not self.handshake_initiated:  # it was a whole head, and no good one
                self.transport.write(BAD_HANDSHAKE)
                self.transport.close()
        self._read_on()

    def _read_on(self) -> None:
        """Parse a piece if nothing waits."""
        if self._may_read() and self._unread:
            piece = bytes(self._unread[:PIECE])
            del self._unread[:PIECE]
            super().data_received(piece)
        if self.transport.is_closing():
            return
        if self._unread or not self._may_read():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        if self._unread and self._may_read():
            self.loop.call_soon(self._read_on)

    def _may_read(self) -> bool:
        is_idle = self.queue.empty() or self.close_sent  # then messages are thrown away
        return is_idle and self.writable.is_set() and not self.transport.is_closing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    async def receive(self) -> ASGIReceiveEvent:
        message = await self.queue.get()
        self._read_on()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.close_sent:  # the client's answer to that is still to come
            self._read_on()

    def handle_cont(self, event: Frame) -> None:
        """Fragments are one piece of memory: the limit of a message counts no empty ones."""
        super().handle_cont(event)
        if self.frames:
            self.frames = [b"".join(self.frames)]
