"""The slab against an OrderedDict, walking its invariants after every step."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from slabcache._structures import Slab

keys = st.integers(0, 40)


class SlabMachine(RuleBasedStateMachine):
    @initialize(
        capacity=st.sampled_from([1, 2, 3, 12, 13, 30]),
        key_size=st.sampled_from([1, 3, 8, 9, 16, 17, 40, 255]),
        value_size=st.sampled_from([1, 4, 20, 300]),
        weak=st.booleans(),
    )
    def create(self, capacity: int, key_size: int, value_size: int, weak: bool) -> None:
        # A product with 0 is 0: with these secrets all keys have the same hash.
        words = (0, 0, 0, 0) if weak else (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 5, 0xA0761D6478BD642F)
        self.slab = Slab(capacity, key_size, value_size, words)
        self.capacity, self.key_size, self.value_size = capacity, key_size, value_size
        self.model: OrderedDict[bytes, bytes] = OrderedDict()

    def key(self, number: int) -> bytes:
        return number.to_bytes(1, "little").rjust(self.key_size, b"\1")

    @rule(number=keys, content=st.integers(0, 255))
    def put(self, number: int, content: int) -> None:
        key, value = self.key(number), bytes([content]) * self.value_size
        expected = None
        if key not in self.model and len(self.model) == self.capacity:
            expected = self.model.popitem(last=False)
        assert self.slab.put(key, value) == expected
        self.model[key] = value
        self.model.move_to_end(key)

    @rule(number=keys)
    def get(self, number: int) -> None:
        key = self.key(number)
        assert self.slab.get(key) == self.model.get(key)
        if key in self.model:
            self.model.move_to_end(key)

    @rule(number=keys)
    def erase(self, number: int) -> None:
        key = self.key(number)
        assert self.slab.erase(key) == (self.model.pop(key, None) is not None)

    @rule()
    def evict(self) -> None:
        if self.model:
            self.slab.evict()
            self.model.popitem(last=False)

    @rule()
    def clear(self) -> None:
        self.slab.clear()
        self.model.clear()

    @rule(capacity=st.integers(1, 30))
    def move(self, capacity: int) -> None:
        self.slab = self.slab.moved(capacity)
        self.capacity = capacity
        while len(self.model) > capacity:
            self.model.popitem(last=False)

    @invariant()
    def holds(self) -> None:
        assert self.slab.check() == 0
        assert self.slab.entries() == list(self.model.items())


TestSlab = SlabMachine.TestCase


@pytest.mark.parametrize(
    ("what", "slot", "status"),
    [
        ("header", 0, 1),
        ("size", 0, 8),
        ("prev", 2, 6),
        ("next", 2, 6),
        ("key", 2, 2),
        ("table", 2, 2),
        ("tag", 0, 3),
        ("overflow", 0, 4),
        ("free", 1, 7),
        ("free", 7, 7),
        ("hint", 2, 9),
        ("trail", 5, 9),
    ],
)
def test_the_walker_sees_each_broken_invariant(what: str, slot: int, status: int) -> None:
    slab = Slab(8, 8, 4)
    for number in range(4):
        slab.put(number.to_bytes(8, "little"), b"abcd")
    assert slab.check() == 0
    slab.corrupt(what, slot)
    assert slab.check()[0] == status
