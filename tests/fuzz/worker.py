"""What a thread or task does to a `WriteBehindCache`, and what it knows of its keys."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from fuzz.codec import Codec
from fuzz.faults import WAYS, Faults
from support.model import canon

if TYPE_CHECKING:
    from fuzz.behind import Run

KEYS = 4  # of each worker
SHARED = 2
CANCELLED = 8  # of that many calls of tasks, one

KEY_SPECS: tuple[Any, ...] = ("<u8", ">u4", "S9", [("a", "<u2"), ("b", ">i8")])
VALUE_SPECS: tuple[Any, ...] = (
    "<i8", ("<i8", (2,)), ("S3", (2, 2)), [("n", ">i8"), ("grid", "<u4", (2,)), ("text", "S4")],
    [("flag", "?"), ("n", "<i8")], "M8[ms]",
    {"names": ["n", "f"], "formats": ["<i8", "f2"], "offsets": [8, 2]},
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A call by a worker; `keys` are numbers of its own keys."""

    worker: int
    name: str
    keys: tuple[int, ...]
    rows: tuple[bytes, ...]
    number: int

    def shorter(self) -> Iterator[Step]:
        if len(self.keys) > 1:
            yield replace(self, keys=self.keys[:-1], rows=self.rows[:-1])


@dataclass(frozen=True)
class Case:
    key: Any
    value: Any
    capacity: int
    options: dict[str, Any]
    default: bytes | None
    stored: int  # rows that are there before
    faults: Faults
    threads: int
    tasks: int
    collects: bool  # the collector runs often, finalizers and a handler of signals read
    seed: int
    ops: tuple[Step, ...]

    def program(self) -> str:
        lines = [repr(replace(self, ops=()))]
        values = Codec(self.value, "value")
        for step in self.ops:
            rows = ", ".join(repr(values.item(row)) for row in step.rows)
            lines.append(f"worker {step.worker}: {step.name} keys {step.keys} values {rows}")
        return "\n".join(lines)


CALLS = (
    "get", "getitem", "peek", "contains", "touch", "put", "put", "put", "delete", "pop",
    "setdefault", "increment", "increment", "update_fields", "get_many", "peek_many",
    "contains_many", "touch_many", "put_many", "put_many", "delete_many", "increment_many",
    "invalidate_many", "scan_keys", "flush", "stats", "snapshot", "shared", "shared", "put_refused",
    "get_refused", "clear", "invalidate_all", "elsewhere",
)  # fmt: skip


INNER = ("put", "get", "pop", "setdefault", "peek", "invalidate_many")


def draw_case(rng: Random) -> Case:
    keys, values = Codec(rng.choice(KEY_SPECS), "key"), Codec(rng.choice(VALUE_SPECS), "value")
    capacity = rng.choice((1, 1, 2, 3, 5, 8, 64))
    threads, tasks = rng.choice(((1, 0), (0, 1), (2, 0), (4, 0), (8, 0), (0, 6), (3, 3)))
    options = {
        "flush_interval": rng.choice((0.0, 0.001, 0.02, 1000.0)),
        "flush_rows": rng.choice((1, 2, 3, 5, 1000)),
        "max_pending": rng.choice((0, 1, 2, 4)),
        "backpressure_timeout": rng.choice((None, None, 0.0, 0.02)),
    }
    options |= {"loads": rng.choice((1, 2, 5)), "load_timeout": rng.choice((None, None, 0.02))}
    workers = threads + tasks
    own = [packed_key(keys, number) for number in range(workers * KEYS)]
    some = rng.choice((0, 0, 1, 2))
    faults = Faults(
        chance=rng.choice((0.0, 0.1, 0.3, 0.7)),
        ways=tuple(rng.sample(WAYS, rng.randint(1, len(WAYS)))),
        unsavable=frozenset(rng.sample(own, min(some, len(own)))),
        undeletable=frozenset(rng.sample(own, min(some, len(own)))),
        unloadable=frozenset(rng.sample(own, min(some, len(own)))),
        refused=frozenset(packed_key(keys, 1000 + worker) for worker in range(workers)),
        seconds=rng.choice((0.0, 0.1, 0.5)),
    )
    if not faults.chance and capacity == 64:
        faults = replace(faults, seconds=math.inf)  # there is room for all; the others are saved meanwhile
    closes = rng.random() < 0.2
    collects = rng.random() < 0.1
    length = rng.choice((10, 40, 120))
    ops = []
    for _ in range(length):
        for worker in range(workers):
            name = "close" if closes and rng.random() < 0.01 else rng.choice(CALLS)
            chosen = tuple(rng.randrange(KEYS) for _ in range(rng.randint(0, 6) if "many" in name else 1))
            drawn = tuple(values.draw(rng) for _ in chosen)
            ops.append(Step(worker, name, chosen, drawn, rng.randrange(1, 100)))
    default = zeroed(values, values.draw(rng)) if rng.random() < 0.5 else None
    stored = rng.choice((0, len(own)))
    seed = rng.randrange(2**32)
    kinds = keys.spec, values.spec
    return Case(
        *kinds, capacity, options, default, stored, faults, threads, tasks, collects, seed, tuple(ops)
    )


def packed_key(keys: Codec, number: int) -> bytes:
    """The packed key of a number."""
    if keys.names:
        return keys.rows(np.array([(number % 7, number)], keys.dtype))[0]
    plain = b"%d" % number if keys.dtype.kind == "S" else number
    return keys.rows(np.array([plain], keys.dtype))[0]


def zeroed(values: Codec, row: bytes) -> bytes:
    """A row whose numbers are far from their limits."""
    at = number_at(values)
    return row if at is None else values.with_item(row, at, 0)


def number_at(values: Codec) -> int | None:
    """Where the number is that increments add to."""
    for at, (name, member) in enumerate(values.fields):
        if member.kind == "i" and member.subdtype is None and name in ("", "n"):
            return at
    return None


class UnexpectedError(AssertionError):
    """A call did not do what the model says."""


class Worker:
    """What one thread or task does, and what it knows of its keys."""

    def __init__(self, run: Run, number: int, steps: list[Step]) -> None:
        self.run, self.number, self.steps = run, number, steps
        self.keys = [packed_key(run.keys, number * KEYS + at) for at in range(KEYS)]
        self.truth: dict[bytes, bytes | None] = {key: run.store.rows.get(key) for key in self.keys}
        self.refused = packed_key(run.keys, 1000 + number)
        self.written: bytes | None = None  # to the row that is refused
        self.was_written: set[bytes] = set()

    # A call is a generator, which threads and tasks drive: it yields the real call and its asyncio form, and
    # is sent the result; then it changes the truth. Where the call has raised it is not resumed.

    def call(self, step: Step) -> Iterator[Any]:
        """Steps of a call: pairs of the plain call and its asyncio form, or None where there is none."""
        return getattr(self, "do_" + step.name)(step)  # type: ignore[no-any-return]

    def read(self, key: bytes) -> bytes | None:
        row = self.truth[key]
        return self.run.case.default if row is None else row

    def key(self, step: Step) -> bytes:
        return self.keys[step.keys[0]]

    def item(self, step: Step, key: bytes) -> Any:
        """A key as an object; some of them use the cache when they are read, twice at most."""
        if step.number % 5 or step.number % CANCELLED == 0 or self.run.keys.dtype.kind not in "iuV":
            return self.run.keys.item(key)
        inner = replace(step, name=INNER[step.number // 5 % len(INNER)], number=step.number + 1)
        calls = iter([inner, replace(inner, keys=tuple((at + 1) % KEYS for at in step.keys))])

        def hook() -> None:
            for call in calls:
                self.run.carry_out(self, call)

        return self.run.keys.item(key, "odd", hook)

    def expect(self, result: Any, row: bytes | None, what: object) -> None:
        codec = self.run.values
        if row is None:
            self.check(result is None, f"{what}: {result!r} of an absent row")
        else:
            self.check(result is not None and canon(result) == codec.canon(row),
                       f"{what}: {result!r}, not {codec.item(row)!r}")  # fmt: skip

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            raise UnexpectedError(f"worker {self.number}: {text}")

    # ---- one key ---------------------------------------------------------------------------------------

    def do_get(self, step: Step, name: str = "get") -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        item = self.item(step, key)
        asynchronous = (lambda: cache.aget(item)) if name == "get" else None
        result = yield lambda: getattr(cache, name)(item), asynchronous
        self.expect(result, self.read(key), step)

    def do_peek(self, step: Step) -> Iterator[Any]:
        return self.do_get(step, "peek")

    def do_getitem(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache[self.item(step, key)], None
        self.missing(result, key, step)
        if result is not KeyError:
            self.expect(result, self.read(key), step)

    def missing(self, result: Any, key: bytes, what: object) -> None:
        absent = self.read(key) is None
        self.check((result is KeyError) is absent, f"{what}: {result!r}, absent is {absent}")

    def do_contains(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: self.item(step, key) in cache, None
        self.check(result is (self.read(key) is not None), f"{step}: {result}")

    def do_touch(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.touch(self.item(step, key)), None
        self.check(result is (self.read(key) is not None), f"{step}: {result}")

    def do_put(self, step: Step) -> Iterator[Any]:
        key, row, cache = self.key(step), zeroed(self.run.values, step.rows[0]), self.run.cache
        item, value = self.item(step, key), self.run.values.item(row)
        yield lambda: cache.__setitem__(item, value), lambda: cache.aset(item, value)
        self.truth[key] = row

    def do_delete(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.__delitem__(self.item(step, key)), None
        self.missing(result, key, step)
        self.truth[key] = None

    def do_pop(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.pop(self.item(step, key), None), None
        self.expect(result, self.read(key), step)
        self.truth[key] = None

    def do_setdefault(self, step: Step) -> Iterator[Any]:
        key, row, cache = self.key(step), zeroed(self.run.values, step.rows[0]), self.run.cache
        value = self.run.values.item(row)
        result = yield lambda: cache.setdefault(self.item(step, key), value), None
        if self.read(key) is None:
            self.truth[key] = row
        self.expect(result, self.read(key), step)

    def do_increment(self, step: Step) -> Iterator[Any]:
        at = number_at(self.run.values)
        if at is None:
            return
        key, cache, by = self.key(step), self.run.cache, step.number
        item, name = self.item(step, key), self.run.values.fields[at][0] or None
        result = yield lambda: cache.increment(item, name, by), lambda: cache.aincrement(item, name, by)
        self.missing(result, key, step)
        if result is not KeyError:
            self.truth[key] = self.plus(self.read(key), by)
            number = self.run.values.number(self.truth[key], at)  # type: ignore[arg-type]
            self.check(result == number, f"{step}: {result}, not {number}")

    def plus(self, row: bytes | None, by: int) -> bytes:
        at, codec = number_at(self.run.values), self.run.values
        assert at is not None
        assert row is not None
        return codec.with_item(row, at, codec.number(row, at) + by)

    def do_update_fields(self, step: Step) -> Iterator[Any]:
        at = number_at(self.run.values)
        if at is None or not self.run.values.names:
            return
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.update_fields(self.item(step, key), n=step.number), None
        self.missing(result, key, step)
        row = self.read(key)
        if row is not None:
            self.truth[key] = self.run.values.with_item(row, at, step.number)

    # ---- many keys -------------------------------------------------------------------------------------

    def batch(self, step: Step) -> tuple[list[bytes], np.ndarray]:
        keys = [self.keys[at] for at in step.keys]
        return keys, self.run.keys.array(keys)

    def too_many(self, keys: list[bytes]) -> bool:
        return len(set(keys)) > self.run.case.capacity + self.run.case.options["max_pending"]

    def do_get_many(self, step: Step, name: str = "get") -> Iterator[Any]:
        keys, array = self.batch(step)
        cache = self.run.cache
        asynchronous = (lambda: cache.aget_many(array)) if name == "get" else None
        values, found = yield lambda: getattr(cache, f"{name}_many")(array), asynchronous
        wanted = [self.read(key) for key in keys]
        self.check(found.tolist() == [row is not None for row in wanted], f"{step}: {found}")
        empty = bytes(self.run.values.size)
        self.check(self.run.values.rows(values) == [row or empty for row in wanted], f"{step}: {values}")

    def do_peek_many(self, step: Step) -> Iterator[Any]:
        return self.do_get_many(step, "peek")

    def do_contains_many(self, step: Step, name: str = "contains") -> Iterator[Any]:
        keys, array = self.batch(step)
        result = yield lambda: getattr(self.run.cache, f"{name}_many")(array), None
        self.check(result.tolist() == [self.read(key) is not None for key in keys], f"{step}: {result}")

    def do_touch_many(self, step: Step) -> Iterator[Any]:
        return self.do_contains_many(step, "touch")

    def do_put_many(self, step: Step) -> Iterator[Any]:
        keys, array = self.batch(step)
        rows = [zeroed(self.run.values, row) for row in step.rows]
        values, cache, wants = self.run.values.array(rows), self.run.cache, step.number % 3 == 0
        result = yield (
            lambda: cache.put_many(array, values, return_evicted=wants),
            lambda: cache.aput_many(array, values, return_evicted=wants),
        )
        self.check((result is ValueError) is self.too_many(keys), f"{step}: {result!r}")
        if result is not ValueError:
            self.truth.update(zip(keys, rows, strict=True))

    def do_delete_many(self, step: Step) -> Iterator[Any]:
        keys, array = self.batch(step)
        result = yield lambda: self.run.cache.delete_many(array), None
        if result is ValueError:  # only rows that are there take room
            self.check(self.too_many(keys), f"{step}: ValueError")
            return
        found = []
        for key in keys:
            found.append(self.read(key) is not None)
            self.truth[key] = None
        self.check(result.tolist() == found, f"{step}: {result}, not {found}")

    def do_increment_many(self, step: Step) -> Iterator[Any]:
        at = number_at(self.run.values)
        if at is None:
            return
        keys, array = self.batch(step)
        name, cache, by = self.run.values.fields[at][0] or None, self.run.cache, step.number
        result = yield (
            lambda: cache.increment_many(array, name, by),
            lambda: cache.aincrement_many(array, name, by),
        )
        if result is ValueError:
            self.check(self.too_many(keys), f"{step}: ValueError")
            return
        values, found = result
        for key, value, there in zip(keys, values.tolist(), found.tolist(), strict=True):
            self.check(there is (self.read(key) is not None), f"{step}: {found}")
            if there:
                self.truth[key] = self.plus(self.read(key), by)
                number = self.run.values.number(self.truth[key], at)  # type: ignore[arg-type]
                self.check(value == number, f"{step}: {value}, not {number}")

    def do_invalidate_many(self, step: Step) -> Iterator[Any]:
        keys, array = self.batch(step)
        gone = yield lambda: self.run.cache.invalidate_many(array), None
        for key, has_gone in zip(keys, gone.tolist(), strict=True):
            stored = self.run.store.rows.get(key)
            self.check(not has_gone or stored == self.truth[key], f"{step}: gone, and the store has {stored}")

    def do_elsewhere(self, step: Step) -> Iterator[Any]:
        """Somebody else changes a row in the store, once it is no longer in memory."""
        key, cache, rows = self.key(step), self.run.cache, self.run.store.rows
        gone = yield lambda: cache.invalidate_many([self.run.keys.item(key)]), None
        if not gone[0]:
            return
        self.truth[key] = zeroed(self.run.values, step.rows[0]) if step.number % 4 else None
        if self.truth[key] is None:
            rows.pop(key, None)
        else:
            rows[key] = self.truth[key]

    # ---- the whole -------------------------------------------------------------------------------------

    def do_clear(self, step: Step) -> Iterator[Any]:
        result = yield self.run.cache.clear, None
        self.check(result is TypeError, f"{step}: {result!r}")

    def do_invalidate_all(self, step: Step) -> Iterator[Any]:
        yield self.run.cache.invalidate_all, None

    def do_scan_keys(self, step: Step) -> Iterator[Any]:
        cache, size = self.run.cache, step.number % 5 + 1

        def scan() -> Any:
            before = self.run.keys.rows(cache.snapshot()[0])
            pieces = [self.run.keys.rows(keys) for keys in cache.scan_keys(size)]
            return before, pieces, self.run.keys.rows(cache.snapshot()[0])

        before, pieces, after = yield scan, None
        self.check(all(0 < len(piece) <= size for piece in pieces), f"{step}: pieces of {size}: {pieces}")
        counts = Counter(key for piece in pieces for key in piece)
        for key in set(before) & set(after) & set(self.keys):
            self.check(1 <= counts[key] <= 2, f"{step}: {key!r} comes {counts[key]} times")

    def do_flush(self, step: Step) -> Iterator[Any]:
        cache, timeout = self.run.cache, step.number / 1000
        result = yield lambda: cache.flush(timeout), lambda: cache.aflush(timeout)
        if result is TimeoutError:
            return
        for key in self.keys:
            stored = self.run.store.rows.get(key)
            self.check(stored == self.truth[key], f"flushed, and the store has {stored} for {key!r}")

    def do_close(self, step: Step) -> Iterator[Any]:
        cache, timeout = self.run.cache, step.number / 1000
        self.run.is_closing = True
        yield lambda: cache.close(timeout), lambda: cache.aclose(timeout)

    def do_stats(self, step: Step) -> Iterator[Any]:
        stats = yield self.run.cache.stats, None
        slots = self.run.case.capacity + self.run.case.options["max_pending"]
        self.check(
            stats.size <= stats.capacity and stats.dirty <= slots and stats.pending <= stats.dirty, f"{stats}"
        )
        self.check(stats.oldest_dirty_age >= 0, f"{stats}")

    def do_snapshot(self, step: Step) -> Iterator[Any]:
        keys, values = yield self.run.cache.snapshot, None
        rows = dict(zip(self.run.keys.rows(keys), self.run.values.rows(values), strict=True))
        self.check(len(rows) == len(keys), "a key twice in a snapshot")
        for key in rows.keys() & self.truth.keys():
            self.check(rows[key] == self.read(key), f"snapshot: {rows[key]!r}")

    # ---- what several write ----------------------------------------------------------------------------

    def do_shared(self, step: Step) -> Iterator[Any]:
        at = number_at(self.run.values)
        if at is None:
            return
        key = packed_key(self.run.keys, 2000 + step.keys[0] % SHARED)
        item, name = self.run.keys.item(key), self.run.values.fields[at][0] or None
        cache = self.run.cache
        result = yield (
            lambda: cache.increment(item, name, step.number),
            lambda: cache.aincrement(item, name, step.number),
        )
        self.check(result is not KeyError, "a counter has gone")
        with self.run.lock:
            self.run.sums[key] += step.number

    def do_put_refused(self, step: Step) -> Iterator[Any]:
        row = zeroed(self.run.values, step.rows[0])
        item, value, cache = self.run.keys.item(self.refused), self.run.values.item(row), self.run.cache
        self.was_written.add(row)  # it may be handed out before the call returns
        yield lambda: cache.__setitem__(item, value), lambda: cache.aset(item, value)
        self.written = row

    def do_get_refused(self, step: Step) -> Iterator[Any]:
        item, cache = self.run.keys.item(self.refused), self.run.cache
        result = yield lambda: cache.get(item), lambda: cache.aget(item)
        allowed = [
            self.run.values.canon(row) for row in (self.written, self.run.case.default) if row is not None
        ]
        self.check(result is None or canon(result) in allowed, f"{step}: {result!r}")
