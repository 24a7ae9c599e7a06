"""Many threads on one `SlabCache`: no model can say who comes first, so checked is what holds in any order.

A value is one number, repeated: a torn one has two. Each look-up counts once, each row that left was told of,
each increment of a key that is never evicted adds up, and the arena holds its invariants all the while.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

import numpy as np

from slabcache import SlabCache
from support.threads import together

KEY_SPECS: tuple[Any, ...] = ("<u8", ">u2", [("a", "<u4"), ("b", ">u4")], "S5", [("a", "u1"), ("b", "V11")])
REPEATED = 5  # numbers of a value
CALLS = (
    "put", "put", "get", "get", "peek", "contains", "touch", "delete", "pop", "popitem", "setdefault",
    "update", "put_many", "put_many", "get_many", "get_many", "peek_many", "delete_many", "touch_many",
    "increment_many", "increment", "increment", "resize", "clear", "snapshot", "copy", "iterate", "check",
    "stats", "pickle", "equal",
)  # fmt: skip


REMOVING = (
    "delete", "pop", "popitem", "delete_many", "resize", "clear", "put", "put_many", "update",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    worker: int
    name: str
    keys: tuple[int, ...]

    def shorter(self) -> Iterator[Step]:
        if len(self.keys) > 1:
            yield replace(self, keys=self.keys[: len(self.keys) // 2])


@dataclass(frozen=True)
class Case:
    key: Any
    capacity: int
    counters: bool  # no key is evicted or deleted, and increments are counted
    on_evict: bool
    workers: int
    ops: tuple[Step, ...]

    def program(self) -> str:
        return "\n".join([repr(replace(self, ops=())), *map(repr, self.ops)])


def draw_case(rng: Random) -> Case:
    capacity = rng.choice((1, 2, 3, 16, 300))
    workers = rng.choice((2, 3, 4, 8))
    counters = rng.random() < 0.3
    keys = range(capacity) if counters else range(2 * capacity + 2)
    ops = []
    for _ in range(rng.choice((20, 100))):
        for worker in range(workers):
            name = rng.choice(CALLS)
            count = (rng.choice((3, 10, 300)) if name.endswith("_many") else 1) + (name == "update") * 4
            if counters and name in REMOVING:
                name = "increment"
            ops.append(Step(worker, name, tuple(rng.choice(keys) for _ in range(count))))
    return Case(rng.choice(KEY_SPECS), capacity, counters, rng.random() < 0.5, workers, tuple(ops))


class Run:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.dtype = np.dtype(case.key)
        self.evicted = 0
        self.lock = threading.Lock()
        self.looked_up = self.added = 0
        self.cache = SlabCache(
            case.capacity, case.key, [("n", "<i8"), ("more", "<i8", (REPEATED,))],
            on_evict=self.on_evict if case.on_evict else None,
        )  # fmt: skip
        if case.counters:
            for number in range(case.capacity):
                self.cache[self.key(number)] = self.value(0)

    def key(self, number: int) -> Any:
        if self.dtype.names:
            second = number if self.dtype["b"].kind == "u" else number.to_bytes(11, "little")
            return number % 200, second
        return b"%05d" % number if self.dtype.kind == "S" else number

    def value(self, number: int) -> Any:
        return number, [number] * REPEATED

    def on_evict(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.whole(values)
        with self.lock:
            self.evicted += len(keys)

    def whole(self, values: np.ndarray) -> None:
        assert (values["more"] == values["more"][:, :1]).all(), f"torn: {values}"

    def drive(self, worker: int) -> None:
        counts: Counter[str] = Counter()
        for step in self.case.ops:
            if step.worker == worker:
                self.act(step, counts)
        with self.lock:
            self.looked_up += counts["looked up"]
            self.added += counts["added"]

    def act(self, step: Step, counts: Counter[str]) -> None:
        cache, keys = self.cache, [self.key(number) for number in step.keys]
        key = keys[0]
        values = np.zeros(len(keys), cache.value_dtype)
        values["n"] = step.keys
        values["more"] = values["n"][:, None]
        match step.name:
            case "put":
                cache[key] = self.value(step.keys[0])
            case "get" | "peek":
                counts["looked up"] += step.name == "get"
                record = getattr(cache, step.name)(key)
                assert record is None or len(set(record.more.tolist())) == 1, f"torn: {record}"
            case "contains":
                _ = key in cache
            case "touch":
                cache.touch(key)
            case "delete":
                with suppress(KeyError):
                    del cache[key]
            case "pop":
                cache.pop(key, None)
            case "popitem":
                with suppress(KeyError):
                    cache.popitem()
            case "setdefault":
                counts["looked up"] += 1
                cache.setdefault(key, self.value(0))
            case "update":
                cache.update(zip(keys, values, strict=True))
            case "put_many":
                cache.put_many(keys, values)
            case "get_many" | "peek_many":
                counts["looked up"] += len(keys) * (step.name == "get_many")
                self.whole(getattr(cache, step.name)(keys)[0])
            case "delete_many" | "touch_many":
                getattr(cache, step.name)(keys)
            case "increment_many":
                counts["added"] += int(cache.increment_many(keys, "n")[1].sum())
            case "increment":
                with suppress(KeyError):
                    cache.increment(key, "n")
                    counts["added"] += 1
            case _:
                self.act_on_all(step)

    def act_on_all(self, step: Step) -> None:
        cache = self.cache
        match step.name:
            case "resize":
                cache.resize(step.keys[0] % self.case.capacity + 1)
            case "clear":
                cache.clear()
            case "snapshot":
                keys, values = cache.snapshot()
                assert len(keys) == len(np.unique(keys))
                self.whole(values)
            case "copy":
                other = copy.copy(cache)
                other._check()
                assert len(other) <= other.capacity
            case "pickle":
                pickle.loads(pickle.dumps(cache))._check()
            case "iterate":
                with suppress(RuntimeError):
                    for _, record in cache.items():
                        assert len(set(record.more.tolist())) == 1, f"torn: {record}"
            case "equal":
                _ = cache == cache.copy()
            case "check":
                cache._check()
            case "stats":
                stats = cache.stats()
                assert stats.insertions - stats.deletions - stats.evictions == stats.size <= stats.capacity

    def __call__(self) -> None:
        together(*(partial(self.drive, number) for number in range(self.case.workers)))
        self.cache._check()
        stats = self.cache.stats()
        assert stats.hits + stats.misses == self.looked_up, f"{self.looked_up} look-ups are not {stats}"
        assert stats.insertions - stats.deletions - stats.evictions == stats.size == len(self.cache)
        if self.case.on_evict:
            assert stats.evictions == self.evicted, f"told of {self.evicted}, and not {stats}"
        if self.case.counters:
            total = int(self.cache.snapshot()[1]["n"].sum())
            assert total == self.added, f"{self.added} were added, and the sum is {total}"


def run_case(case: Case) -> int:
    """Carry out a case; how many operations."""
    Run(case)()
    return len(case.ops)
