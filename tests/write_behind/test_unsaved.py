"""States and rings of unsaved entries, step by step."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slabcache.behind.core import ABSENT, NO_ROOM, UNKNOWN
from slabcache.behind.drain import Drained
from slabcache.behind.request import CREATE, Request
from support.write_behind_core import NEVER, Core, drained

CAPACITY, MAX_PENDING = 4, 3
KEYS = st.integers(0, 11)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = Core(CAPACITY, MAX_PENDING)
        self.values: dict[int, int | None] = {}  # of unsaved keys; None: deleted
        self.batch: set[int] = set()  # keys that the store has been given
        self.rewritten: set[int] = set()  # keys written since then
        self.rows: Drained | None = None
        self.failing: dict[int, int] = {}  # slots, and their keys
        self.number = 0

    @rule(key=KEYS)
    def put(self, key: int) -> None:
        self.number += 1
        fits = key in self.values or len(self.values) < CAPACITY + MAX_PENDING
        assert self.core._attempt_put(key, self.number) is fits
        if fits:
            self.write(key, self.number)

    @rule(key=KEYS)
    def read(self, key: int) -> None:
        value = self.core._attempt(key, True, True)
        if key in self.values:
            assert value is ABSENT if self.values[key] is None else value == self.values[key]

    @rule(key=KEYS)
    def increment(self, key: int) -> None:
        value = self.core._attempt_increment(key, None, 1)
        if self.values.get(key) is not None:
            self.write(key, self.values[key] + 1)
            assert value == self.values[key]
        elif key in self.values:
            assert value is ABSENT
        elif value is not UNKNOWN:  # it is in memory, clean
            assert value is not NO_ROOM
            self.write(key, value)

    @rule()
    def pop_least_recent(self) -> None:
        keys = list(self.core._iterate(backward=False, with_key=True, with_value=False))
        item = self.core._delete_least_recent()
        assert (item is None) is (not keys)
        if item is not None:
            assert item[0] == keys[0]
            self.write(keys[0], None)

    @precondition(lambda self: self.rows is None)
    @rule(limit=st.integers(1, 8))
    def drain(self, limit: int) -> None:
        self.rows = drained(self.core, NEVER, limit)
        slots = self.rows.columns()[0]
        assert len(slots) == min(limit, len(self.values) - len(self.failing))
        assert not self.failing.keys() & set(slots.tolist())
        self.begin()

    @precondition(lambda self: self.rows is None)
    @rule(limit=st.integers(1, 4))
    def take_again(self, limit: int) -> None:
        slots = sorted(self.failing)[:limit]
        self.rows = Drained(self.core, limit)
        self.core._take_again(
            self.rows, np.array([*slots, *slots[:1]][: min(limit, len(self.values))], np.uint32)
        )
        assert self.rows.columns()[0].tolist() == slots
        for slot in slots:
            del self.failing[slot]
        self.begin()

    def begin(self) -> None:
        """A batch has the rows as they were written last."""
        assert self.rows is not None
        slots, since, deleted, keys, values = self.rows.columns()
        assert self.rows.oldest() == min(since.tolist(), default=2**64 - 1)
        for key, value, gone in zip(keys.tolist(), values.tolist(), deleted.tolist(), strict=True):
            assert self.values[key] == (None if gone else value)
            self.batch.add(key)
        assert len(self.batch) == len(slots)
        self.rewritten.clear()

    @precondition(lambda self: self.rows is not None)
    @rule(saved=st.booleans())
    def settle(self, saved: bool) -> None:
        self.core._settle(self.rows.columns()[0], saved)
        for key in self.batch - self.rewritten:
            value = self.values.pop(key)
            if not saved and value is not None:
                assert self.core._attempt(key, False, False) is UNKNOWN
        self.end()

    @precondition(lambda self: self.rows is not None)
    @rule()
    def restore(self) -> None:
        self.core._restore(self.rows)
        self.end()

    @precondition(lambda self: self.rows is not None)
    @rule(part=st.sets(st.integers(0, 7)))
    def put_aside(self, part: set[int]) -> None:
        """Some rows, also such as were written since; the others are given back."""
        slots, since, _, keys, _ = self.rows.columns()
        chosen = [row for row in range(len(slots)) if row in part]
        self.core._put_aside(slots[chosen], since[chosen])
        self.core._put_aside(slots[chosen], since[chosen])  # once more changes nothing
        self.core._restore(self.rows)
        self.failing.update(zip(slots[chosen].tolist(), keys[chosen].tolist(), strict=True))
        self.end()

    def end(self) -> None:
        self.rows = None
        self.batch.clear()

    def write(self, key: int, value: int | None) -> None:
        self.values[key] = value
        self.rewritten.add(key)

    @invariant()
    def holds(self) -> None:
        self.core._check()
        unsaved, pending, failing, since = self.core._unsaved()
        assert unsaved == len(self.values)
        assert failing == len(self.failing)
        assert (since == 0) is (unsaved == failing)
        assert pending <= MAX_PENDING
        for key, value in self.values.items():
            found = self.core._attempt(key, False, False)
            assert found is ABSENT if value is None else found == value


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_exactly_so_many_unsaved_entries_fit() -> None:
    core = Core(3, 2)
    assert [core._attempt_put(key, key) for key in range(6)] == [True] * 5 + [False]
    assert core._attempt_put(4, 40), "it is unsaved already"
    core._check()


def test_slots_have_numbers_of_31_bits() -> None:
    with pytest.raises(ValueError, match="at most 2147483647 together"):
        Core(2**31 - 2, 2)


def test_a_clean_entry_gives_way_where_no_more_may_pend() -> None:
    core = Core(3, 1)
    for key in range(3):
        core._attempt_put(key, key)
    core._settle(drained(core, NEVER, 3).columns()[0], True)
    for key in (10, 11, 12, 13):  # the last three evict clean entries, and one unsaved entry pends
        assert core._attempt_put(key, key)
    assert not core._attempt_put(14, 14)
    core._check()


def test_what_is_due_is_drained_first_and_what_is_pending_after_it() -> None:
    core = Core(2, 2)
    core._attempt_put(1, 1)
    due = core._unsaved()[3]
    time.sleep(0.05)  # the clock has ticks
    core._attempt_put(2, 2)
    core._attempt(1, True, True)
    core._attempt_put(3, 3)  # evicts 2
    rows = drained(core, due, 10).columns()
    assert rows[3].tolist() == [1, 2]
    core._settle(rows[0], True)
    assert drained(core, NEVER, 10).columns()[3].tolist() == [3]


def test_a_change_says_how_many_rows_it_lacks_room_for() -> None:
    core = Core(3, 2)
    for key in range(4):
        core._attempt_put(key, key)
    keys = np.arange(2, 6, dtype="u8")
    request = Request(core, keys, CREATE)
    assert core._put(keys, keys.astype("i8"), request, False) is None
    assert request.lacking == 1


def test_what_is_not_due_stays() -> None:
    core = Core(CAPACITY, MAX_PENDING)
    core._attempt_put(1, 1)
    since = core._unsaved()[3]
    assert len(drained(core, since - 1, 10)) == 0
    assert len(drained(core, since, 10)) == 1


def test_an_acknowledgement_does_not_clean_what_was_written_since() -> None:
    core = Core(CAPACITY, MAX_PENDING)
    core._attempt_put(1, 1)
    rows = drained(core, NEVER, 10)
    core._attempt_put(1, 2)
    core._settle(rows.columns()[0], True)
    assert core._unsaved()[0] == 1
    assert drained(core, NEVER, 10).columns()[4].tolist() == [2]


def test_what_is_not_of_the_cache_is_refused() -> None:
    core, other = Core(CAPACITY, MAX_PENDING), Core(CAPACITY, MAX_PENDING)
    for cache in core, other:
        cache._attempt_put(1, 1)
    far = np.array([4_000_000_000], np.uint32)
    for call in (
        lambda: core._settle(far, True),
        lambda: core._put_aside(far, np.zeros(1, "u8")),
        lambda: core._put_aside(np.array([1], np.uint32), np.zeros(0, "u8")),
        lambda: core._take_again(Drained(core, 1), far),
        lambda: core._take_again(Drained(core, 1), np.ones(2, np.uint32)),
        lambda: core._take_again(drained(core, NEVER, 1), np.ones(1, np.uint32)),
        lambda: core._drain(Drained(other, 1), NEVER),
        lambda: core._restore(Drained(other, 1)),
    ):
        with pytest.raises(ValueError, match="slots|drained|since"):
            call()
