"""The pool of marks against a dict and a list, and the walker on marks that were broken on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from slabcache._structures import Marks, Unsaved

SLOTS = 8
HINTS = st.integers(0, SLOTS)


class MarksMachine(RuleBasedStateMachine):
    @initialize()
    def create(self) -> None:
        self.marks = Marks(SLOTS)
        self.taken: dict[int, int] = {}  # slot -> mark
        self.given_back: list[int] = []  # the last one is taken first
        self.hints = dict.fromkeys(range(1, SLOTS + 1), 0)
        self.free: set[int] = set()
        self.peak = 0

    @rule(slot=st.integers(1, SLOTS))
    def take(self, slot: int) -> None:
        if slot in self.taken or slot in self.free:
            return
        expected = self.given_back.pop() if self.given_back else self.peak + 1
        assert self.marks.take(slot) == expected
        self.taken[slot] = expected
        self.peak = max(self.peak, len(self.taken))

    @rule(slot=st.integers(1, SLOTS))
    def give_back(self, slot: int) -> None:
        if slot in self.taken:
            self.marks.give_back(slot)
            self.given_back.append(self.taken.pop(slot))

    @rule(slot=st.integers(1, SLOTS), hint=HINTS)
    def set_hint(self, slot: int, hint: int) -> None:
        """Of an unsaved slot, a clean one, or one that was freed since: it must not come back by that."""
        self.marks.set_hint(slot, hint)
        self.hints[slot] = hint

    @rule(slot=st.integers(1, SLOTS))
    def set_free(self, slot: int) -> None:
        if slot not in self.taken:
            self.marks.set_free(slot)
            self.free.add(slot)

    @rule(slot=st.integers(1, SLOTS))
    def set_used(self, slot: int) -> None:
        if slot not in self.taken:
            self.marks.set_used(slot)
            self.free.discard(slot)
            self.hints[slot] = 0

    @invariant()
    def same(self) -> None:
        for slot in range(1, SLOTS + 1):
            expected = "free" if slot in self.free else (self.taken.get(slot), self.hints[slot])
            assert self.marks.look(slot) == expected
        assert len(set(self.taken.values())) == len(self.taken)

    @invariant()
    def touches_no_more_than_were_taken_at_a_time(self) -> None:
        assert self.marks.touched() == self.peak


TestMarks = MarksMachine.TestCase

KEYS = st.integers(1, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "write", "delete", "load", "load", "invalidate"]), KEYS),
        st.tuples(st.just("drain"), st.integers(0, 12)),
        st.tuples(st.just("settle"), st.booleans()),
        st.tuples(st.just("restore")),
    ),
    max_size=80,
)


def play(cache: Unsaved, steps: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Take the steps that make sense, one batch at a time, and check the cache after each."""
    flushing = False
    for step in steps:
        call, *arguments = step
        if call == "drain" and flushing:
            continue
        getattr(cache, call)(*arguments)
        flushing = call == "drain" or (flushing and call not in ("settle", "restore"))
        assert cache.check() == 0
        yield step


@given(steps=STEPS)
def test_the_pool_is_touched_as_far_as_the_most_marked_at_a_time(steps: list[tuple[Any, ...]]) -> None:
    cache = Unsaved(5, 4)
    peak = 0
    for _ in play(cache, steps):
        peak = max(peak, sum(bool(cache.mark(slot)) for slot in range(1, 10)))
    assert cache.touched() == peak


@given(steps=STEPS, capacity=st.integers(1, 6), spare=st.integers(0, 3))
def test_a_search_for_a_clean_entry_goes_past_each_entry_once(
    steps: list[tuple[Any, ...]], capacity: int, spare: int
) -> None:
    """All searches together take at most a step for each time that an entry came to a place in the list."""
    cache = Unsaved(capacity, spare)
    moves = 0
    for call, *_ in play(cache, steps):
        moves += call in ("write", "load")
        assert cache.steps() <= moves


def rows_of(size: int, spare: int) -> Unsaved:
    """A full cache whose entries are all unsaved, and as many pending as may be."""
    cache = Unsaved(size, spare)
    for key in range(size + spare):
        assert cache.write(key)
    return cache


SIZE = 2000


def test_a_miss_beside_unsaved_entries_takes_no_walk() -> None:
    """All but the newest entry are unsaved, and each miss evicts that one."""
    cache = rows_of(SIZE, 8)
    cache.drain(1)
    cache.settle()
    for key in range(10 * SIZE, 20 * SIZE):
        cache.load(key)
    assert cache.check() == 0
    assert [unsaved for _, unsaved in cache.listed()] == [True] * (SIZE - 1) + [False]
    assert cache.steps() <= SIZE


def test_rows_that_are_saved_one_by_one_take_no_walk() -> None:
    """Those that the store has not taken yet stay the least recent, and each row that it takes makes room for
    one that is written."""
    cache = rows_of(SIZE, 8)
    for key in range(8, SIZE // 2):  # used since they were written: saved first, and more recent than others
        cache.load(key)
    for key in range(10 * SIZE, 10 * SIZE + SIZE // 2):
        assert cache.drain(1) == 1
        cache.settle()
        assert cache.write(key)
    assert cache.check() == 0
    assert cache.steps() <= 2 * SIZE


def test_every_slot_may_be_unsaved_again_and_again_at_the_marks_of_a_few() -> None:
    cache = Unsaved(40, 8)
    for start in range(0, 4000, 4):
        assert all(cache.write(start + number) for number in range(4))
        assert cache.drain(64) == 4
        cache.settle()
    assert cache.touched() == 4
    assert cache.check() == 0


def test_all_slots_can_be_unsaved() -> None:
    cache = Unsaved(5, 4)
    assert [cache.write(key) for key in range(10)] == [True] * 9 + [False]
    assert cache.touched() == cache.unsaved() == 9
    assert sorted(cache.mark(slot) for slot in range(1, 10)) == list(range(1, 10))
    assert cache.check() == 0


CHECK_FREE, CHECK_HINT, CHECK_UNSAVED, CHECK_MARKS = 7, 9, 10, 11


@pytest.mark.parametrize(
    ("what", "which", "status"),
    [
        ("slot of mark", "unsaved", CHECK_MARKS),
        ("owner", "unsaved", CHECK_MARKS),
        ("mark of slot", "unsaved", CHECK_MARKS),
        ("shared mark", "first unsaved", CHECK_MARKS),
        ("beyond", "unsaved", CHECK_MARKS),
        ("lost mark", "unsaved", CHECK_MARKS),
        ("clean", "unsaved", CHECK_MARKS),
        ("flag", "unsaved", CHECK_UNSAVED),
        ("hint", "unsaved", CHECK_HINT),
        ("hint of clean", "clean", CHECK_HINT),
        ("since", "first unsaved", CHECK_UNSAVED),
        ("free", "clean", CHECK_FREE),
        ("used", "freed", CHECK_FREE),
        ("leak", "unsaved", CHECK_MARKS),
        ("taken again", "unsaved", CHECK_MARKS),
        ("endless", "unsaved", CHECK_MARKS),
        ("fresh", "unsaved", CHECK_MARKS),
        ("dirty ring", "unsaved", CHECK_UNSAVED),
        ("passed", "first unsaved", CHECK_UNSAVED),
        ("cursor", "unsaved", CHECK_UNSAVED),
        ("overtaken ring", "unsaved", CHECK_UNSAVED),
        ("pending ring", "unsaved", CHECK_UNSAVED),
    ],
)
def test_the_walker_sees_each_broken_mark(what: str, which: str, status: int) -> None:
    cache = Unsaved(6, 2)
    for key in range(1, 7):
        assert cache.write(key)  # slot n for key n
    assert cache.drain(4) == 4
    cache.settle()  # 1 to 4 are clean
    assert cache.delete(1)
    assert cache.drain(3) == 3
    cache.settle()  # 1 is free, and all others are clean
    assert [cache.write(key) for key in (4, 5)] == [True, True]
    assert [cache.find(key) for key in range(1, 7)] == [0, 2, 3, 4, 5, 6]
    assert cache.touched() == 6
    assert cache.check() == 0
    cache.corrupt(what, {"freed": 1, "clean": 2, "first unsaved": 4, "unsaved": 5}[which])
    assert cache.check() != 0
    assert cache.check()[0] == status
