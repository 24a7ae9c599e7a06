"""Division: which rows of a batch fail by themselves, and whether the store takes anything at all.

A call of a store with many rows fails as a whole, whatever is wrong: one row that it never takes, one
partition that is down, or the server. `divide` tells these apart. It tries single rows, picked at random,
until one is answered; where none is, and there are more, the store is away. Otherwise the rows are halved, as
in group testing: one row in n that fails costs some 2 log2(n) calls.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from slabcache.errors import RowsRejected

__all__ = ["Outcome", "divide"]

PROBES = 8  # single rows that all fail before the store is taken to be away
PROBING_TIME = 1.0  # seconds for them, or as long as the first call has taken
MISSES_MAX = 64  # calls in a row that fail before no more are made: the store may have gone meanwhile

Rows = npt.NDArray[np.intp]  # numbers of rows

_random = random.Random()  # that of the module belongs to the program, which may have seeded it


class Outcome:
    """What has become of the rows of a batch; those that are not named here were taken.

    `answered` says whether the store has taken or refused anything. Where it has not, it is away, if there is
    a `rest`; otherwise each row has failed by itself.
    """

    def __init__(self) -> None:
        self.failed: dict[int, BaseException] = {}  # rows that fail by themselves, and with what
        self.rest: list[int] = []  # rows that nobody knows about
        self.error: BaseException | None = None  # of the last call that failed
        self.answered = False
        self._misses = 0

    def attempt(self, call: Callable[[Rows], object], rows: Rows, caught: type[BaseException]) -> bool:
        """Whether a call with these rows has succeeded."""
        try:
            call(rows)
        except caught as error:
            self.error = error
            refused = isinstance(error, RowsRejected)
            self.answered |= refused
            self._misses = 0 if refused else self._misses + 1
            if len(rows) == 1:
                self.failed[int(rows[0])] = error
            return False
        self.answered = True
        self._misses = 0
        if len(rows) == 1:
            self.failed.pop(int(rows[0]), None)
        return True

    def may_go_on(self) -> bool:
        return self._misses < MISSES_MAX


def divide(
    count: int,
    call: Callable[[Rows], object],
    *,
    calls_max: int | None = None,
    twice: bool = False,
    caught: type[Any] = Exception,
) -> Outcome:
    """Call a store with the rows 0 to `count` - 1, and again with fewer of them where that fails.

    `call` gets an array of numbers of rows and raises where the store does; what is not `caught` is raised.
    A row is in no call after one that succeeded. With `calls_max` no more parts than that are tried; the rows
    that are left are the `rest`. With `twice` a single row is tried twice before it has failed by itself: a
    store that fails now and then has nothing against it.
    """
    outcome = Outcome()
    rows = np.arange(count)
    started = time.monotonic()
    if count == 0 or outcome.attempt(call, rows, caught):
        return outcome
    if count == 1:
        if twice and not outcome.answered:
            outcome.attempt(call, rows, caught)
        return outcome
    calls = 1
    if not outcome.answered:
        rows = _probe(outcome, call, rows, started, caught)
        if not outcome.answered:
            if len(rows):
                outcome.failed.clear()
                outcome.rest = list(range(count))
            return outcome
    parts = _halves(rows)
    while parts:
        if not outcome.may_go_on() or calls == calls_max:
            outcome.rest = sorted(int(row) for part in parts for row in part)
            break
        part = parts.pop()
        calls += 1
        if outcome.attempt(call, part, caught):
            continue
        if len(part) > 1:
            parts += _halves(part)
        elif twice and not isinstance(outcome.error, RowsRejected):
            outcome.attempt(call, part, caught)
    return outcome


def _probe(
    outcome: Outcome,
    call: Callable[[Rows], object],
    rows: Rows,
    started: float,
    caught: type[BaseException],
) -> Rows:
    """Try single rows until one is answered; the rows that were not tried."""
    now = time.monotonic()
    until = now + max(PROBING_TIME, now - started)
    probes = _random.sample(range(len(rows)), min(PROBES, len(rows)))
    tried = 0
    while tried < len(probes) and not outcome.answered and (tried == 0 or time.monotonic() < until):
        outcome.attempt(call, rows[probes[tried] : probes[tried] + 1], caught)
        tried += 1
    return np.delete(rows, probes[:tried])


def _halves(rows: Rows) -> list[Rows]:
    """The first half last, as it is the next."""
    middle = (len(rows) + 1) // 2
    return [half for half in (rows[middle:], rows[:middle]) if len(half)]
