"""The LRU list against a Python list."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from slabcache._structures import List

SLOTS = 8


class ListMachine(RuleBasedStateMachine):
    @initialize(stride=st.sampled_from([12, 16, 48, 300]))
    def create(self, stride: int) -> None:
        self.list = List(SLOTS, stride)
        self.model: list[int] = []  # from most to least recent

    @rule(slot=st.integers(1, SLOTS))
    def push(self, slot: int) -> None:
        if slot not in self.model:
            self.list.push(slot)
            self.model.insert(0, slot)

    @rule(slot=st.integers(1, SLOTS))
    def unlink(self, slot: int) -> None:
        if slot in self.model:
            self.list.unlink(slot)
            self.model.remove(slot)

    @rule(slot=st.integers(1, SLOTS))
    def move_to_front(self, slot: int) -> None:
        if slot in self.model:
            moved = self.list.move_to_front(slot)
            assert moved == (self.model[0] != slot)
            self.model.remove(slot)
            self.model.insert(0, slot)

    @invariant()
    def same_order(self) -> None:
        assert self.list.forward() == self.model
        assert self.list.backward() == self.model[::-1]


TestList = ListMachine.TestCase
