"""The HTTP and WebSocket interface.

What is in memory is answered at once, whatever the database does. What has to wait for it gets PATIENCE
seconds, and is turned away at once when too many wait already: 503, and when to come back. So is everybody
while there are too many connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from read_states.bodies import ID_MAX, Ack, Batch, Mention, Pin, ReadState, Refused, SessionMessage, States
from read_states.logs import log_failure
from slabcache import BackpressureError, RowsRejected

__all__ = ["BODY_MAX", "Operations", "Service", "make_app"]

PATIENCE = 2.0  # seconds that a request waits for the database
WAITING_MAX = 500  # requests that wait for it at a time
BODY_MAX = 64 * 1024  # bytes

SHED = Counter(
    "read_states_shed",
    "Requests told 503: the database is slow or down, the user another's, or too many are there",
)
FAILED = Counter(
    "read_states_failed", "Requests told 500: a row that is damaged in the database, or a mistake of ours"
)

Result = TypeVar("Result")


class Operations(Protocol):
    """What `states.py` and `twin.py` have in common."""

    async def read(self, user: int, channel: int) -> ReadState: ...
    async def read_many(self, user: int, channels: list[int]) -> list[ReadState]: ...
    async def ack(self, user: int, channel: int, message_id: int) -> ReadState: ...
    async def pin(self, user: int, channel: int, pin_ts: int) -> ReadState: ...
    async def mention(self, channel: int, users: list[int], count: int) -> list[int]: ...
    async def close(self, timeout: float | None = None) -> None: ...


class UnavailableError(Exception):
    """The answer is not in memory, and the database has none now."""


class CrowdedError(UnavailableError):
    """There are too many connections: this one ends, so that there are fewer."""


class FailureError(Exception):
    """The answer cannot be had: the row is damaged in the database, or it is a mistake of ours."""


class RefusalError(Exception):
    """The request is wrong."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Service:
    """Runs operations, and turns what they raise into what a client is told."""

    def __init__(
        self, states: Operations, store_errors: tuple[type[Exception], ...], max_connections: int
    ) -> None:
        self.states = states
        self.count_connections: Callable[[], int] = lambda: 0  # of the server
        self._max_connections = max_connections
        self._max_sessions = max_connections * 3 // 4  # which last, so requests are left some room
        self._sessions = 0
        self._store_errors: tuple[type[Exception], ...] = (BackpressureError, *store_errors)
        self._waiting = 0

    @property
    def is_crowded(self) -> bool:
        return self.count_connections() > self._max_connections

    async def run(self, call: Coroutine[Any, Any, Result]) -> Result:
        if self.is_crowded:
            call.close()
            raise CrowdedError("too many connections")
        self._waiting += 1
        try:
            # A hit never lets the loop go, so no timeout gets at it.
            async with asyncio.timeout(PATIENCE if self._waiting <= WAITING_MAX else 0):
                return await call
        except TimeoutError:
            raise UnavailableError("the database is slow") from None
        except (RefusalError, UnavailableError):
            raise
        except Exception as error:
            if self._is_away(error):
                raise UnavailableError(f"the database is not there: {error}") from error
            FAILED.inc()
            log_failure(error)
            raise FailureError(f"internal error: {type(error).__name__}") from error
        finally:
            self._waiting -= 1

    def _is_away(self, error: Exception) -> bool:
        """Whether the database is, by what it has raised: the error, or its cause, where those who wait for a
        load have an error of their own each."""
        if isinstance(error, RowsRejected):
            return False
        return isinstance(error, self._store_errors) or isinstance(error.__cause__, self._store_errors)

    # ---- requests --------------------------------------------------------------------------------------

    async def read(self, request: Request) -> ReadState:
        user, channel = ids(request)
        return await self.run(self.states.read(user, channel))

    async def read_batch(self, request: Request) -> States:
        (user,) = ids(request)
        body = await body_of(request, Batch)
        return States(await self.run(self.states.read_many(user, body.channels)))

    async def ack(self, request: Request) -> ReadState:
        user, channel = ids(request)
        body = await body_of(request, Ack)
        return await self.run(self.states.ack(user, channel, body.message_id))

    async def pin(self, request: Request) -> ReadState:
        user, channel = ids(request)
        body = await body_of(request, Pin)
        return await self.run(self.states.pin(user, channel, body.pin_ts))

    async def mention(self, request: Request) -> Refused:
        body = await body_of(request, Mention)
        return Refused(await self.run(self.states.mention(body.channel, body.users, body.count)))

    async def session(self, websocket: WebSocket) -> None:
        """One user's connection: each message is answered by one, the states of the channels it names."""
        self._sessions += 1
        try:
            with suppress(WebSocketDisconnect):  # at any time, also while it is told why it is closed
                if self._sessions > self._max_sessions or self.is_crowded:
                    await websocket.send_denial_response(unavailable(CrowdedError("too many sessions")))
                else:
                    await websocket.accept()
                    await self._converse(websocket)
        finally:
            self._sessions -= 1

    async def _converse(self, websocket: WebSocket) -> None:
        try:
            user = number(websocket.path_params["user"], "user")
            while True:
                frame = await websocket.receive()
                if frame["type"] == "websocket.disconnect":
                    return
                message = decode(frame.get("text") or frame.get("bytes") or b"", SessionMessage)
                states = []
                if message.ack is not None:
                    ack = message.ack
                    states.append(await self.run(self.states.ack(user, ack.channel, ack.message_id)))
                if message.read:
                    states += await self.run(self.states.read_many(user, message.read))
                await websocket.send_text(msgspec.json.encode(States(states)).decode())
        except RefusalError as error:
            await websocket.close(1008, cut(str(error)))
        except UnavailableError as error:
            SHED.inc()
            await websocket.close(1013, cut(str(error)))
        except FailureError as error:
            await websocket.close(1011, cut(str(error)))


async def healthy(_: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def make_app(service: Service, first: Sequence[Route] = ()) -> Starlette:
    """The ASGI application; routes of `first` are taken before its own."""
    channel = "/users/{user}/channels/{channel}"
    return Starlette(
        routes=[
            *first,
            Route(channel, endpoint(service.read)),
            Route("/users/{user}/channels:batch", endpoint(service.read_batch), methods=["POST"]),
            Route(channel + "/ack", endpoint(service.ack), methods=["POST"]),
            Route(channel + "/pin", endpoint(service.pin), methods=["POST"]),
            Route("/mentions", endpoint(service.mention), methods=["POST"]),
            Route("/healthz", healthy),
            Route("/metrics", metrics),
            WebSocketRoute("/users/{user}/session", service.session),
        ],
        exception_handlers={HTTPException: no_such_thing, Exception: failed},
    )


def endpoint(answer: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """An operation as Starlette wants it: what it returns becomes JSON, and what it raises, too."""

    async def respond(request: Request) -> Response:
        try:
            return reply(await answer(request))
        except RefusalError as error:
            ending = {"Connection": "close"} if error.status == 413 else None  # nobody reads the rest
            return reply({"error": str(error)}, error.status, ending)
        except UnavailableError as error:
            return unavailable(error)
        except FailureError as error:
            return reply({"error": str(error)}, 500)

    return respond


async def no_such_thing(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return reply({"error": error.detail}, error.status_code)


async def failed(_: Request, error: Exception) -> Response:
    """A mistake of ours outside of the operations; the server logs it."""
    return reply({"error": f"internal error: {type(error).__name__}"}, 500)


def unavailable(error: UnavailableError) -> Response:
    SHED.inc()
    ending = {"Connection": "close"} if isinstance(error, CrowdedError) else {}
    return reply({"error": str(error)}, 503, {"Retry-After": "1", **ending})


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def ids(request: Request) -> list[int]:
    return [number(text, name) for name, text in request.path_params.items()]


def number(text: str, name: str) -> int:
    is_short = len(text) <= len(str(ID_MAX)) and text.isascii() and text.isdecimal()
    if not is_short or int(text) > ID_MAX:
        raise RefusalError(f"{name} must be a number from 0 to {ID_MAX}, not {text[:40]!r}")
    return int(text)


def cut(reason: str) -> str:
    """As much of it as a WebSocket may be closed with: 123 bytes."""
    return reason.encode()[:123].decode(errors="ignore")


Body = TypeVar("Body")


async def body_of(request: Request, kind: type[Body], largest: int = BODY_MAX) -> Body:
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > largest:
                raise RefusalError(f"the body is larger than {largest} bytes", 413)
    except ClientDisconnect:
        raise RefusalError("the body ends too early") from None
    return decode(body, kind)


def decode(data: bytes | bytearray | str, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RefusalError(str(error) if data else "the body is empty, and must be JSON") from None
