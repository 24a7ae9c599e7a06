"""The Read States service in a process of its own, and a client's conversation with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, cast

import aiohttp
import uvicorn

from measuring.ports import free_port

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
# the environment of a process that runs the example
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{EXAMPLES}:{os.environ.get('PYTHONPATH', '')}"}
ZEROS = {"last_message_id": 0, "mention_count": 0, "last_pin_ts": 0}


class Instance:
    """A running service."""

    def __init__(self, store: str, *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-X", "faulthandler", "-m", "read_states", "serve", "--store", store]
        self.process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        self.log: list[str] = []
        self._has_begun = threading.Event()
        self._follower = threading.Thread(target=self._follow)
        self._follower.start()
        self._has_begun.wait()
        if not any("serving on" in line for line in self.log):
            self.kill()
            raise AssertionError("the service has not started\n" + "".join(self.log))

    def _follow(self) -> None:
        """Read its log as it writes it: a full pipe would hold it up."""
        with cast(IO[str], self.process.stderr) as lines:
            for line in lines:
                self.log.append(line)
                if "serving on" in line:
                    self._has_begun.set()
        self._has_begun.set()

    def memory(self) -> float:
        """The most that was resident so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        return int(peak) / 1024

    def terminate(self) -> int:
        """SIGTERM; the exit status, and all that it has said in `log`."""
        self.process.send_signal(signal.SIGTERM)
        self._follower.join()
        return self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._follower.join()


@contextlib.contextmanager
def started(store: str, *options: str) -> Iterator[Instance]:
    """An instance that may end as it likes."""
    instance = Instance(store, *options)
    try:
        yield instance
    finally:
        instance.kill()


@contextlib.contextmanager
def running(store: str, *options: str) -> Iterator[Instance]:
    """An instance that has to end well."""
    with started(store, *options) as instance:
        yield instance
        assert instance.terminate() == 0, "".join(instance.log)
        assert "all is saved" in instance.log[-1]
        assert "Traceback" not in "".join(instance.log)


@contextlib.asynccontextmanager
async def hosted(server: uvicorn.Server) -> AsyncIterator[tuple[str, int]]:
    """A server in this process, at a free port; its address."""
    server.config.port = 0
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    await serving


async def post(client: aiohttp.ClientSession, path: str, **body: Any) -> Any:
    async with client.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def get(client: aiohttp.ClientSession, path: str) -> Any:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def state(last_message_id: int = 0, mention_count: int = 0, last_pin_ts: int = 0) -> dict[str, int]:
    return {"last_message_id": last_message_id, "mention_count": mention_count, "last_pin_ts": last_pin_ts}


async def converse(url: str) -> None:
    """Every operation once, through HTTP and a session."""
    async with aiohttp.ClientSession(url) as client:
        assert await get(client, "/users/1/channels/2") == state()
        assert await post(client, "/users/1/channels/2/ack", message_id=50) == state(50)
        assert await post(client, "/mentions", channel=2, users=[1, 3], count=2) == {"refused": []}
        assert await post(client, "/mentions", channel=2, users=[1]) == {"refused": []}
        assert await post(client, "/users/1/channels/2/pin", pin_ts=1000) == state(50, 3, 1000)
        assert await post(client, "/users/1/channels/2/pin", pin_ts=999) == state(50, 3, 1000)
        assert await post(client, "/users/1/channels/2/ack", message_id=50) == state(50, 3, 1000)
        assert await post(client, "/users/1/channels/2/ack", message_id=49) == state(50, 3, 1000)
        assert await get(client, "/users/3/channels/2") == state(0, 2)
        assert await post(client, "/users/1/channels:batch", channels=[9, 2, 9]) == {
            "states": [state(), state(50, 3, 1000), state()]
        }
        async with client.ws_connect("/users/1/session") as session:
            await session.send_json({"ack": {"channel": 2, "message_id": 51}, "read": [2, 7]})
            assert await session.receive_json() == {
                "states": [state(51, 0, 1000), state(51, 0, 1000), state()]
            }
            await session.send_json({"read": []})
            assert await session.receive_json() == {"states": []}
        largest = 2**63 - 1
        assert await post(client, f"/users/{largest}/channels/{largest}/ack", message_id=largest) == state(
            largest
        )


async def remember(url: str) -> None:
    """What `converse` has left, in a service that has started since."""
    async with aiohttp.ClientSession(url) as client:
        assert await get(client, "/users/1/channels/2") == state(51, 0, 1000)
        assert await get(client, "/users/3/channels/2") == state(0, 2)
        assert await get(client, f"/users/{2**63 - 1}/channels/{2**63 - 1}") == state(2**63 - 1)


def check_round_trip(store: str, *options: str) -> None:
    with running(store, *options) as instance:
        asyncio.run(converse(instance.url))
    with running(store, *options) as instance:
        asyncio.run(remember(instance.url))
