"""A fleet on one machine: `python -m read_states fleet` starts the database, instances and the gateway.

    python -m read_states fleet --instances 4 --store sqlite:read_states.db
    python -m read_states fleet add             from another terminal: one more instance
    python -m read_states fleet remove NAME     one less
    python -m read_states fleet status

All of it is in a folder: the ring, the configuration of nginx, logs, and a socket for these commands.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import read_states
from read_states.app import reply
from read_states.fleet.change import ChangeError, change_ring
from read_states.fleet.gateway import NO_NGINX, Gateway, find_nginx
from read_states.fleet.member import Rings
from read_states.fleet.ring import Ring
from read_states.options import at_most
from read_states.rows import without_options

__all__ = ["Fleet", "add_arguments", "run"]

EXAMPLES = Path(read_states.__file__).parent.parent
HOST = "127.0.0.1"
ASKED_WITHIN = aiohttp.ClientTimeout(total=5)
CHANGE_WITHIN = 300.0  # seconds that an instance may take for a step
COMMANDS_WITHIN = 60  # seconds that commands under way get after SIGTERM
PASSED_ON = ("capacity", "max_pending", "max_connections", "flush_interval")  # options of the instances


class FleetError(Exception):
    """Told to the user in one line."""


class Fleet:
    """Instances and their gateway; every process is a child of this one. `options` are those of `serve`."""

    def __init__(self, folder: Path, store: str, port: int, *options: str) -> None:
        self.folder = folder
        self.processes: dict[str, asyncio.subprocess.Process] = {}  # by the address of the instance
        self.gateway = Gateway(folder / "nginx", f"{HOST}:{port}")
        self._ring: list[str] = []
        self._ring_file = folder / "ring.json"
        self._options = ["--store", store, *options]
        self._changing = asyncio.Lock()
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CHANGE_WITHIN))

    async def start(self, instances: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ring = [f"{HOST}:{free_port()}" for _ in range(instances)]
        Rings(self._ring).write(self._ring_file)
        for name in self._ring:
            await self._start(name)
        await asyncio.to_thread(self.gateway.start, Ring(self._ring))

    async def add(self) -> str:
        """One more instance, which takes users from all others; its name."""
        async with self._changing:
            name = f"{HOST}:{free_port()}"
            await self._start(name)  # the ring that it reads does not have it yet
            try:
                await self._change([*self._ring, name])
            except ChangeError:
                await self._stop(name)
                raise
            return name

    async def remove(self, name: str) -> None:
        """One instance less, which leaves its users to all others."""
        async with self._changing:
            if name not in self._ring:
                raise FleetError(f"{name} is no instance of {sorted(self._ring)}")
            if len(self._ring) == 1:
                raise FleetError(f"{name} is the last instance")
            await self._change([other for other in self._ring if other != name])
            await self._stop(name)

    async def status(self) -> list[dict[str, Any]]:
        """What each instance says of itself."""
        rows = []
        for name, process in self.processes.items():
            row = {"instance": name, "process": process.pid}
            try:
                async with self._http.get(f"http://{name}/fleet/status", timeout=ASKED_WITHIN) as response:
                    row |= await response.json()
            except (aiohttp.ClientError, TimeoutError) as error:
                row["error"] = str(error) or "it does not answer"
            rows.append(row)
        return rows

    async def stop(self) -> bool:
        """No new requests, then all is saved; or it was not."""
        await asyncio.to_thread(self.gateway.stop)
        saved = await asyncio.gather(*map(self._stop, list(self.processes)))
        await self._http.close()
        return all(saved)

    async def _change(self, ring: list[str]) -> None:
        for name in await change_ring(self._http, self._ring_file, self._ring, ring):
            print(f"{name} has not heard of the new ring, and serves only users that stay with it")
        self._ring = ring
        await asyncio.to_thread(self.gateway.reload, Ring(ring))

    async def _start(self, name: str) -> None:
        """Returns when it serves."""
        paths = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "read_states", "serve", "--port", name.rpartition(":")[2]]
        with (self.folder / f"{name}.log").open("a") as log:
            process = self.processes[name] = await asyncio.create_subprocess_exec(
                *command,
                *self._options,
                "--ring",
                str(self._ring_file),
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": paths},
            )
        while not await self._is_healthy(name):
            if process.returncode is not None:
                del self.processes[name]
                raise FleetError(f"the instance {name} has ended, see {self.folder / name}.log")
            await asyncio.sleep(0.05)

    async def _is_healthy(self, name: str) -> bool:
        try:
            async with self._http.get(f"http://{name}/healthz", timeout=ASKED_WITHIN) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _stop(self, name: str) -> bool:
        """End an instance; whether it has saved all."""
        process = self.processes.pop(name)
        if process.returncode is None:
            process.terminate()
        if await process.wait():
            print(f"the instance {name} has not saved all, see {self.folder / name}.log")
        return process.returncode == 0


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


# ---- the commands -----------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument(
        "action",
        nargs="?",
        choices=["start", "add", "remove", "status"],
        default="start",
        help="start a fleet, and add an instance to it, remove one, or look at it, from another terminal",
    )
    parser.add_argument("name", nargs="?", help="the instance to remove")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/fleet"), help="for what it writes; one fleet in each"
    )
    parser.add_argument("--instances", type=at_most(1000), default=4, help="to start with")
    parser.add_argument("--port", type=at_most(2**16 - 1), default=8000, help="of the gateway")
    parser.add_argument(
        "--store",
        default="sqlite:read_states.db",
        help="as of `serve`; `cassandra` alone starts one here, which takes Java and Maven",
    )
    parser.add_argument("--capacity", default="1000000", help="records in memory, of each instance")
    parser.add_argument("--max-pending", default="20000", help="records that wait for the database besides")
    parser.add_argument("--max-connections", default="4000", help="of each instance")
    parser.add_argument("--flush-interval", default="30", help="seconds from a change to its commit")


def run(arguments: argparse.Namespace) -> int:
    try:
        if (arguments.action == "remove") != bool(arguments.name):
            raise FleetError("remove, and nothing else, takes the name of an instance: see status")
        if arguments.action == "start":
            return asyncio.run(_serve(arguments))
        return asyncio.run(_ask(arguments.folder, arguments.action, arguments.name))
    except (FleetError, FileNotFoundError, ChildProcessError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1


async def _serve(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    if find_nginx() is None:
        raise FleetError(NO_NGINX)
    server = uvicorn.Server(
        uvicorn.Config(
            lambda: _commands(fleet), factory=True, log_config=None, timeout_graceful_shutdown=COMMANDS_WITHIN
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)  # the server's own are in place only while it serves
    store, stop_store = (
        _start_cassandra() if arguments.store == "cassandra" else (arguments.store, lambda: None)
    )
    options = [
        part for name in PASSED_ON for part in (f"--{name.replace('_', '-')}", str(getattr(arguments, name)))
    ]
    fleet = Fleet(arguments.folder, store, arguments.port, *options)
    try:
        await fleet.start(arguments.instances)
        print(f"the database is {without_options(store)}")
        for name, process in fleet.processes.items():
            print(f"an instance listens at {name}, process {process.pid}")
        print(f"the gateway listens at {fleet.gateway.address}, process {fleet.gateway.pid}", flush=True)
        with _control(arguments.folder / "control") as listener:
            await server.serve([listener])
    finally:
        saved = await fleet.stop()
        stop_store()
    return 0 if saved else 1


def _start_cassandra() -> tuple[str, Callable[[], object]]:
    """A server on this machine; what stops it again, if it did not run before."""
    sys.path.append(str(EXAMPLES.parent))  # the checkout, wherever this was started
    from tools.cassandra.node import Node, NodeError

    node = Node()
    was_there = node.pid() is not None
    try:
        node.start()
    except NodeError as error:
        raise FleetError(f"Cassandra has not started: {error}") from None
    return node.url("read_states"), (lambda: None) if was_there else node.stop


def _commands(fleet: Fleet) -> Starlette:
    """The commands, for other processes of this machine."""

    async def add(_: Request) -> Response:
        return reply({"added": await fleet.add()})

    async def remove(request: Request) -> Response:
        name = request.query_params["name"]
        await fleet.remove(name)
        return reply({"removed": name})

    async def status(_: Request) -> Response:
        return reply(await fleet.status())

    async def explain(_: Request, error: Exception) -> Response:
        if isinstance(error, ChangeError):
            return reply({"abandoned": f"the old ring holds: {error}"}, 503)
        if isinstance(error, FleetError):
            return reply({"error": str(error)}, 400)
        return reply({"error": f"{type(error).__name__}: {error}"}, 500)  # the server logs the traceback

    return Starlette(
        routes=[
            Route(f"/{command.__name__}", command, methods=["POST"]) for command in (add, remove, status)
        ],
        exception_handlers=dict.fromkeys([ChangeError, FleetError, Exception], explain),
    )


@contextmanager
def _control(path: Path) -> Iterator[socket.socket]:
    """A socket that only this user can open."""
    path.unlink(missing_ok=True)
    before = os.umask(0o077)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.umask(before)
        yield listener


async def _ask(folder: Path, action: str, name: str | None) -> int:
    connector = aiohttp.UnixConnector(str(folder / "control"))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as http:
        try:
            async with http.post(f"http://fleet/{action}", params={"name": name} if name else {}) as response:
                print(json.dumps(await response.json(), indent=2))
                return 0 if response.status == 200 else 1
        except aiohttp.ClientConnectorError:
            raise FleetError(f"no fleet runs in {folder}") from None
        except aiohttp.ClientError as error:
            raise FleetError(f"the fleet has not answered, see its terminal: {error}") from None
