"""`WriteBehindCache` against a dict: what is read was written, and after a flush the store has it all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from slabcache import BackpressureError, WriteBehindCache
from support.faulty_store import FaultyStore

KEYS = st.integers(0, 15)
BATCHES = st.lists(KEYS, max_size=12)
NUMBERS = st.integers(-1000, 1000)


class Machine(RuleBasedStateMachine):
    @initialize(
        capacity=st.integers(1, 6),
        max_pending=st.integers(0, 4),
        interval=st.sampled_from([0.0, 0.001, 1000.0]),
        flush_rows=st.integers(1, 5),
        default=st.sampled_from([None, 7]),
        rows=st.dictionaries(KEYS, NUMBERS),
    )
    def create(
        self, capacity: int, max_pending: int, interval: float, flush_rows: int, default: Any, rows: Any
    ) -> None:
        self.default = default
        self.store = FaultyStore(rows=rows)
        self.truth = dict(rows)
        self.cache = WriteBehindCache(
            capacity,
            self.store,
            flush_interval=interval,
            flush_rows=flush_rows,
            max_pending=max_pending,
            backpressure_timeout=30.0,
            default=default,
        )

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.store.failure = None  # a rule that has failed leaves it, and `close` would wait for ever
            self.cache.close()
            assert self.store.rows == self.truth
            assert self.store.closed == 1

    def read(self, key: int) -> Any:
        return self.truth.get(key, self.default)

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        if self.read(key) is None:
            with pytest.raises(KeyError):
                self.cache[key]
            assert self.cache.get(key, "none") == "none"
        else:
            assert self.cache[key] == self.read(key)
        assert self.cache.peek(key) == self.read(key)
        assert (key in self.cache) is (self.read(key) is not None)
        assert self.cache.touch(key) is (self.read(key) is not None)

    @rule(key=KEYS, number=NUMBERS)
    def put(self, key: int, number: int) -> None:
        self.cache[key] = number
        self.truth[key] = number

    @rule(key=KEYS, by=NUMBERS)
    def increment(self, key: int, by: int) -> None:
        if self.read(key) is None:
            with pytest.raises(KeyError):
                self.cache.increment(key, by=by)
        else:
            self.truth[key] = self.read(key) + by
            assert self.cache.increment(key, by=by) == self.truth[key]

    @rule(key=KEYS, number=NUMBERS)
    def setdefault(self, key: int, number: int) -> None:
        expected = self.read(key)
        if expected is None:
            expected = self.truth[key] = number
        assert self.cache.setdefault(key, number) == expected

    @rule(key=KEYS)
    def pop(self, key: int) -> None:
        assert self.cache.pop(key, None) == self.read(key)
        self.truth.pop(key, None)

    @rule()
    def popitem(self) -> None:
        if len(self.cache):
            key, value = self.cache.popitem()
            assert value == self.read(key)
            self.truth.pop(key, None)

    @rule(keys=BATCHES)
    def get_many(self, keys: list[int]) -> None:
        values, found = self.cache.get_many(keys)
        assert found.tolist() == [self.read(key) is not None for key in keys]
        assert values.tolist() == [self.read(key) or 0 for key in keys]
        assert self.cache.contains_many(np.array(keys, "u8")).tolist() == found.tolist()
        assert self.cache.peek_many(keys)[0].tolist() == values.tolist()

    @rule(rows=st.lists(st.tuples(KEYS, NUMBERS), max_size=12))
    def put_many(self, rows: list[tuple[int, int]]) -> None:
        keys, values = [key for key, _ in rows], [value for _, value in rows]
        if len(set(keys)) > self.cache._slots:
            with pytest.raises(ValueError, match="different keys"):
                self.cache.put_many(keys, values)
        else:
            self.cache.put_many(keys, values)
            self.truth.update(rows)

    @rule(keys=BATCHES, by=NUMBERS)
    def increment_many(self, keys: list[int], by: int) -> None:
        if len(set(keys)) > self.cache._slots:
            return
        values, found = self.cache.increment_many(keys, by=by)
        for key, value, there in zip(keys, values.tolist(), found.tolist(), strict=True):
            assert there is (self.read(key) is not None)
            if there:
                self.truth[key] = self.read(key) + by
                assert value == self.truth[key]

    @rule(keys=BATCHES)
    def delete_many(self, keys: list[int]) -> None:
        if len(set(keys)) > self.cache._slots:
            return
        found = []
        for key in keys:
            found.append(self.read(key) is not None)
            self.truth.pop(key, None)
        assert self.cache.delete_many(keys).tolist() == found

    @rule(keys=BATCHES)
    def invalidate_many(self, keys: list[int]) -> None:
        gone = self.cache.invalidate_many(keys).tolist()
        for key, has_gone in zip(keys, gone, strict=True):
            assert not has_gone or self.store.rows.get(key) == self.truth.get(key)

    @rule(rows=st.integers(1, 5))
    def scan_keys(self, rows: int) -> None:
        pieces = [keys.tolist() for keys in self.cache.scan_keys(rows)]
        keys = [key for piece in pieces for key in piece]
        assert all(len(piece) <= rows for piece in pieces)
        assert len(keys) == len(set(keys))
        assert set(self.cache) <= set(keys)
        assert all(self.read(key) is not None for key in keys)

    @rule()
    def flush(self) -> None:
        self.cache.flush()
        assert self.store.rows == self.truth

    @rule()
    def outage(self) -> None:
        self.store.failure = OSError("down")

    @rule()
    def recovery(self) -> None:
        self.store.failure = None

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "cache"):
            self.store.failure = None  # an outage lasts as long as the rule after it
            self.cache._check()
            stats = self.cache.stats()
            assert stats.size <= stats.capacity
            assert stats.dirty <= self.cache._slots


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class OutageMachine(Machine):
    """The same while the store fails: writes find no room, and change nothing then."""

    @rule(key=KEYS, number=NUMBERS)
    def put_during_outage(self, key: int, number: int) -> None:
        self.store.failure = OSError("down")
        self.cache._patience = 0.0
        try:
            self.cache[key] = number
            self.truth[key] = number
        except BackpressureError:  # a batch that was under way may have made room since
            pass
        finally:
            self.cache._patience = 30.0

    @rule(rows=st.dictionaries(KEYS, NUMBERS, max_size=6))
    def put_many_during_outage(self, rows: dict[int, int]) -> None:
        if len(rows) > self.cache._slots:
            return
        self.store.failure = OSError("down")
        self.cache._patience = 0.0
        try:
            self.cache.put_many(list(rows), list(rows.values()))
            self.truth.update(rows)
        except BackpressureError:
            pass
        finally:
            self.cache._patience = 30.0


TestOutageMachine = OutageMachine.TestCase
TestOutageMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
