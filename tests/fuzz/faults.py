"""A store in memory that fails at random, and for certain keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from fuzz.codec import Codec
from slabcache import RowsRejected
from support.faulty_store import FaultyStore


class InjectedError(Exception):
    """Of this store's making: what a call may raise meanwhile."""


class LateError(Exception):
    """The store was called after its end. Those who wait for a load then are to get ClosedError."""


class _OSError(InjectedError, OSError):
    pass


class _KeyError(InjectedError, KeyError):
    pass


class _MemoryError(InjectedError, MemoryError):
    pass


class _RuntimeError(InjectedError, RuntimeError):
    pass


class _TypeError(InjectedError, TypeError):
    pass


class _ValueError(InjectedError, ValueError):
    pass


TEMPORARY = (_OSError, _KeyError, _MemoryError, _RuntimeError, _TypeError, _ValueError)
WAYS = ("before", "middle", "after", "hang", "slow", "shape", "calls back")


@dataclass(frozen=True)
class Faults:
    """What goes wrong until the store is well again; but what is refused stays so."""

    chance: float = 0.0  # of a fault in a call
    ways: tuple[str, ...] = ()
    unsavable: frozenset[bytes] = frozenset()  # keys; any call with one of them fails
    undeletable: frozenset[bytes] = frozenset()
    unloadable: frozenset[bytes] = frozenset()
    refused: frozenset[bytes] = frozenset()
    seconds: float = 0.5
    errors: tuple[type[InjectedError], ...] = field(default=TEMPORARY)


class InjectingStore(FaultyStore):
    """Packed rows by packed keys."""

    def __init__(self, keys: Codec, values: Codec, rows: dict[bytes, bytes], faults: Faults, rng: Random):
        super().__init__(keys.dtype, values.dtype, rows)
        self.keys, self.values, self.faults, self.rng = keys, values, faults, rng
        self.is_faulty = True
        self.call_back: Callable[[], object] = _nothing
        self.raised = 0
        self.late_writes = 0

    def heal(self) -> None:
        self.is_faulty = False

    def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        names = self._distinct(keys)
        way = self._draw(names, self.faults.unloadable)
        if way in ("before", "middle"):
            self._raise(names)
        rows = [self.rows.get(name) for name in names]  # without a lock: a finalizer may come back here
        if way == "after":
            self._raise(names)
        if way == "calls back":
            self.call_back()
        values = self.values.array([row or bytes(self.values.size) for row in rows])
        found = np.array([row is not None for row in rows], bool)
        if way == "shape":
            self.raised += 1
            return self.rng.choice(
                ((values[:-1], found), (values, found[:-1]), (values, 5), None, (found, values))
            )
        return values, found

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        names = self._distinct(keys)
        rows = dict(zip(names, self.values.rows(values), strict=True))
        self.late_writes += self.closed
        way = self._draw(names, self.faults.unsavable)
        if self.faults.refused.intersection(names):
            raise RowsRejected("never")
        self._apply(names, way, lambda name: self.rows.__setitem__(name, rows[name]))

    def delete_many(self, keys: np.ndarray) -> None:
        names = self._distinct(keys)
        self.late_writes += self.closed
        way = self._draw(names, self.faults.undeletable)
        self._apply(names, way, lambda name: self.rows.pop(name, None))

    def _apply(self, names: list[bytes], way: str, act: Callable[[bytes], object]) -> None:
        if way == "before":
            self._raise(names)
        for name in names[: len(names) // 2 if way == "middle" else None]:
            act(name)
        if way in ("middle", "after"):
            self._raise(names)

    def _draw(self, names: list[bytes], failing: frozenset[bytes]) -> str:
        """What goes wrong in this call."""
        if self.closed:
            raise LateError("the store is closed")
        if not self.is_faulty:
            return ""
        if failing.intersection(names):
            return "before"
        if self.rng.random() >= self.faults.chance:
            return ""
        way = self.rng.choice(self.faults.ways)
        if way in ("hang", "slow"):
            time.sleep(self.rng.random() * (0.3 if way == "hang" else 0.005))
            return self.rng.choice(("", "before"))
        return way

    def _raise(self, names: list[bytes]) -> None:
        self.raised += 1
        raise self.rng.choice(self.faults.errors)(f"injected, {len(names)} rows")

    def _distinct(self, keys: np.ndarray) -> list[bytes]:
        names = self.keys.rows(keys)
        assert len(set(names)) == len(names) > 0, "keys are distinct"
        return names


def _nothing() -> None:
    """No call."""


def is_injected(error: BaseException | None) -> bool:
    """Whether an error is of the store's making."""
    seen: list[Any] = []
    links = [error]
    while links:
        link = links.pop()
        if link is None or link in seen:
            continue
        seen.append(link)
        if isinstance(link, InjectedError) or "load_many" in str(link):
            return True
        links += [link.__cause__, link.__context__]
    return False
