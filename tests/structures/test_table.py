"""The hash table against a dict, with hashes chosen to collide."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from slabcache._structures import Table

CELLS = 12


class TableMachine(RuleBasedStateMachine):
    """Keys are 4 bytes; the test decides on each key's hash, from very few to very many values."""

    entries = Bundle("entries")

    @initialize(buckets=st.integers(1, 5), spread=st.sampled_from(["same", "tag", "bucket", "all"]))
    def create(self, buckets: int, spread: str) -> None:
        self.spread = spread
        self.room = buckets * CELLS
        self.table = Table(buckets, self.room, 4)
        self.model: dict[bytes, int] = {}
        self.free = list(range(self.room, 0, -1))

    def hash(self, key: bytes) -> int:
        number = int.from_bytes(key, "little")
        if self.spread == "same":
            return 0
        if self.spread == "tag":
            return number % 256
        if self.spread == "bucket":
            return (number * 0x9E3779B97F4A7C15) % 2**64 & ~0xFF
        return (number * 0x9E3779B97F4A7C15) % 2**64

    @rule(target=entries, number=st.integers(0, 200))
    def insert(self, number: int) -> bytes:
        key = number.to_bytes(4, "little")
        if key not in self.model and self.free:
            slot = self.free.pop()
            self.table.insert(self.hash(key), slot, key)
            self.model[key] = slot
        return key

    @rule(first=st.integers(0, 200), count=st.integers(1, 60))
    def insert_run(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.insert(number)

    @rule(key=consumes(entries))
    def erase(self, key: bytes) -> None:
        if key in self.model:
            slot = self.model.pop(key)
            self.table.erase(self.hash(key), slot)
            self.free.append(slot)

    @rule(step=st.integers(1, 3))
    def erase_some(self, step: int) -> None:
        for key in list(self.model)[::step]:
            self.erase(key)

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.free += self.model.values()
        self.model.clear()

    @rule(number=st.integers(0, 300))
    def find(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        assert self.table.find(self.hash(key), key) == self.model.get(key, 0)

    @invariant()
    def same_content(self) -> None:
        assert self.table.cells() == sorted(self.model.values())
        for key, slot in self.model.items():
            assert self.table.find(self.hash(key), key) == slot

    @invariant()
    def no_debt(self) -> None:
        """An empty table has forgotten every overflow: there are no tombstones."""
        if not self.model:
            assert not any(self.table.overflow())


TestTable = TableMachine.TestCase


def test_a_full_table_still_ends_every_search() -> None:
    table = Table(2, 24, 4)
    for number in range(24):
        table.insert(0, number + 1, number.to_bytes(4, "little"))
    assert all(table.find(0, number.to_bytes(4, "little")) == number + 1 for number in range(24))
    assert table.find(0, b"none") == 0
    assert table.overflow() == [12, 0]


def test_overflow_in_every_bucket_ends_a_search() -> None:
    """Two half-empty buckets can each have sent an entry to the other."""
    table = Table(2, 24, 4)
    high = 1 << 63
    for number in range(12):
        table.insert(0, number + 1, bytes([0, 0, 0, number]))
    table.insert(0, 13, b"past")
    for number in range(12):
        table.erase(0, number + 1)
    for number in range(11):
        table.insert(high, number + 1, bytes([1, 0, 0, number]))
    table.insert(high, 12, b"wrap")
    assert table.overflow() == [1, 1]
    assert table.find(0, b"none") == table.find(high, b"none") == 0
    assert table.find(0, b"past") == 13
    assert table.find(high, b"wrap") == 12
