"""Loads that writes overtake: none brings an older row back, wherever the newer one is by then."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slabcache.behind.core import ABSENT, UNKNOWN
from slabcache.behind.drain import Drained
from slabcache.behind.request import READ, Request
from support.write_behind_core import NEVER, Core, drained

CAPACITY, MAX_PENDING = 2, 1
KEYS = st.integers(0, 4)


class Machine(RuleBasedStateMachine):
    """A store, and loads that have read it and take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(CAPACITY, MAX_PENDING)
        self.store = {key: -key - 1 for key in range(5)}
        self.newest: dict[int, int | None] = dict(self.store)  # what each key has; None: deleted
        self.batch: Any = None
        self.loads: list[tuple[int, int | None, int, int]] = []  # key, row, last write and rows saved by then
        self.saved = 0  # rows
        self.failing: set[int] = set()  # slots
        self.number = 0

    @rule(key=KEYS)
    def put(self, key: int) -> None:
        self.number += 1
        if self.core._attempt_put(key, self.number):
            self.newest[key] = self.number

    @rule()
    def pop(self) -> None:
        item = self.core._delete_least_recent()
        if item is not None:
            self.newest[item[0]] = None

    @precondition(lambda self: self.batch is None)
    @rule()
    def flush(self) -> None:
        self.drain(CAPACITY + MAX_PENDING)
        self.end_of_batch(True)

    @precondition(lambda self: self.batch is None)
    @rule(limit=st.integers(1, 3))
    def drain(self, limit: int) -> None:
        self.batch = drained(self.core, NEVER, limit)

    @precondition(lambda self: self.batch is not None)
    @rule(taken=st.booleans())
    def end_of_batch(self, taken: bool) -> None:
        batch, self.batch = self.batch, None
        if not taken:
            self.core._restore(batch)
            return
        slots, _, deleted, keys, values = batch.columns()
        for key, value, gone in zip(keys.tolist(), values.tolist(), deleted.tolist(), strict=True):
            self.saved += 1
            if gone:
                self.store.pop(key, None)
            else:
                self.store[key] = value
        self.core._settle(slots, True)

    @precondition(lambda self: self.batch is not None)
    @rule()
    def put_aside(self) -> None:
        slots, since, *_ = self.batch.columns()
        self.core._put_aside(slots, since)
        self.failing.update(slots.tolist())
        self.batch = None

    @precondition(lambda self: self.batch is None)
    @rule(limit=st.integers(1, 3))
    def take_again(self, limit: int) -> None:
        slots = sorted(self.failing)[:limit]
        if slots:
            self.batch = Drained(self.core, limit)
            self.core._take_again(self.batch, np.array(slots, np.uint32))
            self.failing.difference_update(slots)

    @rule(key=KEYS)
    def start_load(self, key: int) -> None:
        rows, _, since = self.core._missing(Request(self.core, [key], READ, False, True))
        if len(rows):
            self.loads.append((key, self.store.get(key), since, self.saved))

    @precondition(lambda self: self.loads)
    @rule(which=st.integers(0, 20))
    def end_load(self, which: int) -> None:
        key, found, since, saved = self.loads.pop(which % len(self.loads))
        room = self.core._unsaved()[0] < CAPACITY
        values, there = np.array([found or 0], "i8"), np.array([found is not None])
        self.core._keep(np.array([key], "u8"), values, there, since)
        if room and found is not None and saved == self.saved:
            assert self.core._attempt(key, False, False) is not UNKNOWN, "nothing has overtaken it"

    @invariant()
    def memory_has_what_was_written_last(self) -> None:
        self.core._check()
        for key in range(5):
            value = self.core._attempt(key, False, False)
            newest = self.newest.get(key)
            if value is UNKNOWN:
                assert self.store.get(key) == newest
            else:
                assert value is ABSENT if newest is None else value == newest


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
