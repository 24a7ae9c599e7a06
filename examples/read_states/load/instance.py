"""An instance of the service, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from measuring.ports import free_port

__all__ = ["Instance", "InstanceError", "Metrics", "cores", "running", "taken"]

START_PATIENCE = 30.0  # seconds
END_PATIENCE = 60.0
POLL = 0.05

#: Figures by their name, with the label that tells samples of one name apart: `name{2}` for a generation.
Metrics = dict[str, float]


class InstanceError(Exception):
    """The service did not start, or did not end well; the text has what it said."""


class Instance:
    """Where the service is, and how it is."""

    def __init__(self, base: str, pid: int, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.pid = pid
        self._session = session

    async def metrics(self) -> Metrics:
        async with self._session.get(self.base + "/metrics") as response:
            text = await response.text()
        return {
            sample.name + "".join(f"{{{label}}}" for name, label in sample.labels.items() if name != "cache"):
                sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }  # fmt: skip

    async def saved(self, timeout: float) -> None:
        """Return when all is in the database, so that writing it does not disturb what comes next."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while (await self.metrics())["slabcache_dirty"]:
                    await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def running(
    session: aiohttp.ClientSession, log: Path, core: int | None, **options: object
) -> AsyncIterator[Instance]:
    """`serve` with these options, on this core; afterwards it is asked to end, and must end well."""
    port = free_port()
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "read_states", "serve", f"--port={port}", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})  # before it has any threads, which inherit it
        instance = Instance(f"http://127.0.0.1:{port}", process.pid, session)
        await _until_healthy(instance, session, process, log)
        yield instance
        process.send_signal(signal.SIGTERM)
        if code := await asyncio.to_thread(process.wait, END_PATIENCE):
            raise InstanceError(f"the service ended with exit code {code}:\n{log.read_text()}")
    finally:
        process.kill()
        process.wait()


async def _until_healthy(
    instance: Instance, session: aiohttp.ClientSession, process: subprocess.Popen[bytes], log: Path
) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_PATIENCE):
            while process.poll() is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(instance.base + "/healthz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(POLL)
    raise InstanceError(f"the service did not start:\n{log.read_text()}")


def cores() -> tuple[int | None, int | None]:
    """One for the service and one for the load on it, where there are two."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (mine[0], mine[1]) if len(mine) > 1 else (None, None)


def taken(pid: int) -> float:
    """Seconds that the core of a process worked for others, or the host had it; 0 if it has several.

    At least: interrupts are not in it, most of which are of the process's own connections, and the system may
    count some of them as the process's time.
    """
    try:
        (core,) = os.sched_getaffinity(pid)
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        user, nice, system, _, _, _, _, steal = next(
            map(int, line[1:9]) for line in lines if line[0] == f"cpu{core}"
        )
        mine = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, ValueError, AttributeError):
        return 0.0
    return (user + nice + system + steal - sum(map(int, mine))) / os.sysconf("SC_CLK_TCK")
