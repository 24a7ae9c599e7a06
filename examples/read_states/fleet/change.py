"""A change of the ring, in two steps, so that no user ever has two instances.

    prepare   each instance of the old ring serves only users that stay with it, saves what it has, and
              forgets the others. If one fails, the change is abandoned: the old ring holds
    commit    the file of the ring is replaced, which decides; all instances are told the new ring

In between a user that moves has no instance, and is told 503. The file says what is under way, for instances
that start meanwhile. Whoever calls this makes one change at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import msgspec

from read_states.fleet.member import Change, Rings

__all__ = ["ChangeError", "change_ring"]

ATTEMPTS = 20  # to tell an instance what has been decided
PAUSE = 0.5  # seconds between them


class ChangeError(Exception):
    """It was abandoned: the old ring holds."""


async def change_ring(http: aiohttp.ClientSession, file: Path, old: list[str], new: list[str]) -> list[str]:
    """Put a ring in place of another one; those who could not be told. They serve only users that stay with
    them until they are restarted."""
    change = Change(old, new)
    Rings(old, new).write(file)
    failures = await _tell(http, old, "prepare", change)
    if failures:
        Rings(old).write(file)
        await _tell(http, old, "abandon", change)
        raise ChangeError("; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items())))
    Rings(new).write(file)
    waiting = await _tell(http, {*old, *new}, "commit", change)
    for _ in range(ATTEMPTS):
        if not waiting:
            break
        await asyncio.sleep(PAUSE)
        waiting = await _tell(http, waiting, "commit", change)
    return sorted(waiting)


async def _tell(
    http: aiohttp.ClientSession, instances: Iterable[str], step: str, change: Change
) -> dict[str, str]:
    """Tell all at the same time; those that failed, and why."""

    async def tell(instance: str) -> str:
        try:
            body = msgspec.json.encode(change)
            async with http.post(f"http://{instance}/fleet/{step}", data=body) as response:
                return "" if response.status == 200 else f"{response.status} {await response.text()}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{type(error).__name__} {error}"

    names = list(instances)
    answers = await asyncio.gather(*map(tell, names))
    return {name: answer for name, answer in zip(names, answers, strict=True) if answer}
