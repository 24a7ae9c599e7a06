"""Sends requests. Two ways: each when it is due (open loop), or the next when one is answered (closed loop).

The generator must not be the stall that is measured. So all requests are made before the first is sent, its
own garbage collector is off meanwhile, what is noted goes into arrays, and it does not sleep where the next
request is near. How late it sent is in the recording; latency counts from when a request was due, and so
has that in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import aiohttp
import msgspec
import numpy as np
import yarl
from numpy.typing import NDArray

from read_states.load.schedule import Kind, Request

__all__ = ["Call", "Recording", "connect", "quiet_collector", "replay", "saturate", "to_calls"]

CONNECTIONS = 400
PATIENCE = 60.0  # seconds that an answer may take
SLEEP_LEAST = 0.003  # seconds; timers are a millisecond late
HEAD_START = 50_000_000  # nanoseconds before the first request is due
PROGRESS_EVERY = 200  # requests
FAILED = -1  # status of a request that got no answer

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Call:
    """A request as it goes over the wire."""

    method: str
    url: yarl.URL
    body: bytes | None


@dataclass
class Recording:
    """What became of each request. Times in nanoseconds since the first was due."""

    due: NDArray[np.int64]
    sent: NDArray[np.int64] = field(init=False)
    done: NDArray[np.int64] = field(init=False)
    status: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.sent, self.done, self.status = (np.zeros_like(self.due) for _ in range(3))


def to_calls(base: str, requests: Sequence[Request]) -> list[Call]:
    return [_to_call(base, request) for request in requests]


def _to_call(base: str, request: Request) -> Call:
    channel, user = request.channels[0], request.users[0]
    path = f"/users/{user}/channels/{channel}"
    body: dict[str, Any] | None = None
    match request.kind:
        case Kind.ACK:
            path, body = path + "/ack", {"message_id": request.number}
        case Kind.PIN:
            path, body = path + "/pin", {"pin_ts": request.number}
        case Kind.BATCH:
            path, body = f"/users/{user}/channels:batch", {"channels": request.channels}
        case Kind.MENTION:
            path, body = "/mentions", {"channel": channel, "users": request.users, "count": 1}
    encoded = None if body is None else msgspec.json.encode(body)
    return Call("GET" if body is None else "POST", yarl.URL(base + path, encoded=True), encoded)


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """No collection in here, and what is there now is never walked."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextlib.asynccontextmanager
async def connect() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections that are kept alive."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
    ) as session:
        yield session


async def replay(
    session: aiohttp.ClientSession, calls: Sequence[Call], due: Sequence[float], progress: Progress
) -> Recording:
    """Open loop: send each call when it is due, in seconds, answered or not.

    It goes out on one of CONNECTIONS. Where all of them wait for answers, it waits in line, and that counts
    as latency. The line is one of our own: that of aiohttp lets new requests overtake those that wait.
    """
    connections = asyncio.Semaphore(CONNECTIONS)
    recording = Recording((np.array(due) * 1e9).astype(np.int64))
    begin = perf_counter_ns() + HEAD_START

    async def send(number: int, call: Call) -> None:
        recording.sent[number] = perf_counter_ns() - begin
        async with connections:
            recording.status[number] = await _status(session, call)
        recording.done[number] = perf_counter_ns() - begin

    async with asyncio.TaskGroup() as group:
        for number, (call, moment) in enumerate(zip(calls, recording.due.tolist(), strict=True)):
            while (left := (begin + moment - perf_counter_ns()) / 1e9) > 0:
                await asyncio.sleep(left - SLEEP_LEAST if left > 2 * SLEEP_LEAST else 0)
            group.create_task(send(number, call))
            if number % PROGRESS_EVERY == 0:
                progress(number)
    return recording


async def saturate(
    session: aiohttp.ClientSession,
    calls: Iterator[Call],
    clients: int,
    seconds: float = float("inf"),
    progress: Progress = lambda _: None,
) -> tuple[int, float]:
    """Closed loop: each client sends the next call once answered; how many succeeded, in what time."""
    begin = perf_counter_ns()
    answered = itertools.count(1)
    good = 0

    async def client() -> None:
        nonlocal good
        for call in calls:
            status = await _status(session, call)
            good += status == 200
            if (count := next(answered)) % PROGRESS_EVERY == 0:
                progress(count)
            if perf_counter_ns() - begin > seconds * 1e9:
                return

    await asyncio.gather(*(client() for _ in range(clients)))
    return good, (perf_counter_ns() - begin) / 1e9


async def _status(session: aiohttp.ClientSession, call: Call) -> int:
    try:
        async with session.request(call.method, call.url, data=call.body) as response:
            await response.read()
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return FAILED
