"""`WriteBehindCache` before a store that fails, with many threads and tasks, against a dict for each.

Each worker has keys of its own, so that what it reads is known exactly: the last value that was acknowledged.
A call that raises has changed nothing. Shared counters are checked by their sum. Once `flush()` has returned
the store has the worker's rows; rows that it refuses are told to `on_rejected`, and to nobody else.

A seed gives the same calls again, not the same moments at which threads take turns.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import math
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from fuzz.codec import Codec
from fuzz.faults import WAYS, Faults, InjectingStore, is_injected
from fuzz.today import TODAY
from model import canon
from slabcache import BackpressureError, ClosedError, WriteBehindCache, flusher

KEYS = 4  # of each worker
SHARED = 2
PATIENCE = 120.0  # seconds until the watchdog bites; a round takes one or two

KEY_SPECS: tuple[Any, ...] = ("<u8", ">u4", "S9", [("a", "<u2"), ("b", ">i8")])
VALUE_SPECS: tuple[Any, ...] = (
    "<i8", ("<i8", (2,)), ("S3", (2, 2)), [("n", ">i8"), ("grid", "<u4", (2,)), ("text", "S4")],
    [("flag", "?"), ("n", "<i8")], "M8[ms]", {"names": ["n", "f"], "formats": ["<i8", "f2"], "offsets": [8, 2]},
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
    collects: bool  # the collector runs often, and finalizers read
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
    "get", "getitem", "peek", "contains", "touch", "put", "put", "put", "delete", "pop", "setdefault",
    "increment", "increment", "update_fields", "get_many", "peek_many", "contains_many", "touch_many", "put_many",
    "put_many", "delete_many", "increment_many", "invalidate_many", "scan_keys", "flush", "stats", "snapshot",
    "shared", "shared", "put_refused", "get_refused", "clear", "invalidate_all",
)  # fmt: skip


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
    if "loads have no options" not in TODAY:
        options |= {"loads": rng.choice((1, 2, 5)), "load_timeout": rng.choice((None, None, 0.02))}
    workers = threads + tasks
    own = [_key(keys, number) for number in range(workers * KEYS)]
    some = rng.choice((0, 0, 1, 2))
    faults = Faults(
        chance=rng.choice((0.0, 0.1, 0.3, 0.7)),
        ways=tuple(rng.sample(WAYS, rng.randint(1, len(WAYS)))),
        unsavable=frozenset(rng.sample(own, min(some, len(own)))),
        undeletable=frozenset(rng.sample(own, min(some, len(own)))),
        unloadable=frozenset(rng.sample(own, min(some, len(own)))),
        refused=frozenset(_key(keys, 1000 + worker) for worker in range(workers)),
        seconds=rng.choice((0.0, 0.1, 0.5)),
    )
    if not faults.chance and capacity == 64 and "one row holds up others" not in TODAY:
        faults = replace(faults, seconds=math.inf)  # there is room for all; the others are saved meanwhile
    closes = rng.random() < 0.2
    collects = rng.random() < 0.1 and "finalizers break loads" not in TODAY
    length = rng.choice((10, 40, 120))
    ops = []
    for _ in range(length):
        for worker in range(workers):
            name = "close" if closes and rng.random() < 0.01 else rng.choice(CALLS)
            chosen = tuple(rng.randrange(KEYS) for _ in range(rng.randint(0, 6) if "many" in name else 1))
            drawn = tuple(values.draw(rng) for _ in chosen)
            ops.append(Step(worker, name, chosen, drawn, rng.randrange(1, 100)))
    default = _zeroed(values, values.draw(rng)) if rng.random() < 0.5 else None
    return Case(keys.spec, values.spec, capacity, options, default, rng.choice((0, len(own))), faults, threads,
                tasks, collects, rng.randrange(2**32), tuple(ops))  # fmt: skip


def _key(keys: Codec, number: int) -> bytes:
    """The packed key of a number."""
    if keys.names:
        return keys.rows(np.array([(number % 7, number)], keys.dtype))[0]
    plain = b"%d" % number if keys.dtype.kind == "S" else number
    return keys.rows(np.array([plain], keys.dtype))[0]


def _zeroed(values: Codec, row: bytes) -> bytes:
    """A row whose numbers are far from their limits."""
    return values.with_item(row, _n(values), 0) if _n(values) is not None else row  # type: ignore[arg-type]


def _n(values: Codec) -> int | None:
    """Where the number is that increments add to."""
    for at, (name, member) in enumerate(values.fields):
        if member.kind == "i" and member.subdtype is None and name in ("", "n"):
            return at
    return None


class Unexpected(AssertionError):
    """A call did not do what the model says."""


class Worker:
    """What one thread or task does, and what it knows of its keys."""

    def __init__(self, run: Run, number: int, steps: list[Step]) -> None:
        self.run, self.number, self.steps = run, number, steps
        self.keys = [_key(run.keys, number * KEYS + at) for at in range(KEYS)]
        self.truth: dict[bytes, bytes | None] = {key: run.store.rows.get(key) for key in self.keys}
        self.refused = _key(run.keys, 1000 + number)
        self.written: bytes | None = None  # to the row that is refused
        self.was_written: set[bytes] = set()

    # A call is a generator: it yields the real call, is sent the result, or thrown what was raised, and changes
    # the truth. Threads and tasks drive it.

    def call(self, step: Step) -> Iterator[Any]:
        """Steps of a call: pairs of the plain call and its asyncio form, or None where there is none."""
        return getattr(self, "do_" + step.name)(step)  # type: ignore[no-any-return]

    def read(self, key: bytes) -> bytes | None:
        row = self.truth[key]
        return self.run.case.default if row is None else row

    def key(self, step: Step) -> bytes:
        return self.keys[step.keys[0]]

    def expect(self, result: Any, row: bytes | None, what: object) -> None:
        codec = self.run.values
        if row is None:
            self.check(result is None, f"{what}: {result!r} of an absent row")
        else:
            self.check(result is not None and canon(result) == codec.canon(row),
                       f"{what}: {result!r}, not {codec.item(row)!r}")  # fmt: skip

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            raise Unexpected(f"worker {self.number}: {text}")

    # ---- one key ---------------------------------------------------------------------------------------

    def do_get(self, step: Step, name: str = "get") -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        item = self.run.keys.item(key)
        asynchronous = (lambda: cache.aget(item)) if name == "get" else None
        result = yield lambda: getattr(cache, name)(item), asynchronous
        self.expect(result, self.read(key), step)

    def do_peek(self, step: Step) -> Iterator[Any]:
        return self.do_get(step, "peek")

    def do_getitem(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache[self.run.keys.item(key)], None
        self.missing(result, key, step)
        if result is not KeyError:
            self.expect(result, self.read(key), step)

    def missing(self, result: Any, key: bytes, what: object) -> None:
        absent = self.read(key) is None
        self.check((result is KeyError) is absent, f"{what}: {result!r}, absent is {absent}")

    def do_contains(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: self.run.keys.item(key) in cache, None
        self.check(result is (self.read(key) is not None), f"{step}: {result}")

    def do_touch(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.touch(self.run.keys.item(key)), None
        self.check(result is (self.read(key) is not None), f"{step}: {result}")

    def do_put(self, step: Step) -> Iterator[Any]:
        key, row, cache = self.key(step), _zeroed(self.run.values, step.rows[0]), self.run.cache
        item, value = self.run.keys.item(key), self.run.values.item(row)
        yield lambda: cache.__setitem__(item, value), lambda: cache.aset(item, value)
        self.truth[key] = row

    def do_delete(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.__delitem__(self.run.keys.item(key)), None
        self.missing(result, key, step)
        self.truth[key] = None

    def do_pop(self, step: Step) -> Iterator[Any]:
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.pop(self.run.keys.item(key), None), None
        self.expect(result, self.read(key), step)
        self.truth[key] = None

    def do_setdefault(self, step: Step) -> Iterator[Any]:
        key, row, cache = self.key(step), _zeroed(self.run.values, step.rows[0]), self.run.cache
        value = self.run.values.item(row)
        result = yield lambda: cache.setdefault(self.run.keys.item(key), value), None
        if self.read(key) is None:
            self.truth[key] = row
        self.expect(result, self.read(key), step)

    def do_increment(self, step: Step) -> Iterator[Any]:
        at = _n(self.run.values)
        if at is None:
            return
        key, cache, by = self.key(step), self.run.cache, step.number
        item, name = self.run.keys.item(key), self.run.values.fields[at][0] or None
        result = yield lambda: cache.increment(item, name, by), lambda: cache.aincrement(item, name, by)
        self.missing(result, key, step)
        if result is not KeyError:
            self.truth[key] = self.plus(self.read(key), by)
            number = self.run.values.number(self.truth[key], at)  # type: ignore[arg-type]
            self.check(result == number, f"{step}: {result}, not {number}")

    def plus(self, row: bytes | None, by: int) -> bytes:
        at, codec = _n(self.run.values), self.run.values
        assert at is not None
        assert row is not None
        return codec.with_item(row, at, codec.number(row, at) + by)

    def do_update_fields(self, step: Step) -> Iterator[Any]:
        at = _n(self.run.values)
        if at is None or not self.run.values.names:
            return
        key, cache = self.key(step), self.run.cache
        result = yield lambda: cache.update_fields(self.run.keys.item(key), n=step.number), None
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
        rows = [_zeroed(self.run.values, row) for row in step.rows]
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
        at = _n(self.run.values)
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

    # ---- the whole -------------------------------------------------------------------------------------

    def do_clear(self, step: Step) -> Iterator[Any]:
        if "clear deletes" not in TODAY:
            result = yield self.run.cache.clear, None
            self.check(result is TypeError, f"{step}: {result!r}")

    def do_invalidate_all(self, step: Step) -> Iterator[Any]:
        if "clear deletes" not in TODAY:
            yield self.run.cache.invalidate_all, None  # type: ignore[attr-defined]

    def do_scan_keys(self, step: Step) -> Iterator[Any]:
        yield lambda: [keys.tolist() for keys in self.run.cache.scan_keys(step.number % 5 + 1)], None

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
        at = _n(self.run.values)
        if at is None:
            return
        key = _key(self.run.keys, 2000 + step.keys[0] % SHARED)
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
        row = _zeroed(self.run.values, step.rows[0])
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


class Run:
    """One case, carried out."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.keys, self.values = Codec(case.key, "key"), Codec(case.value, "value")
        rng = Random(case.seed)
        rows = {_key(self.keys, n): _zeroed(self.values, self.values.draw(rng)) for n in range(case.stored)}
        self.sums: dict[bytes, int] = defaultdict(int)
        for n in range(SHARED):
            rows[_key(self.keys, 2000 + n)] = _zeroed(self.values, bytes(self.values.size))
        self.store = InjectingStore(self.keys, self.values, rows, case.faults, rng)
        self.closes = any(step.name == "close" for step in case.ops)
        self.lock = threading.Lock()
        self.rejected: dict[bytes, list[bytes]] = defaultdict(list)
        self.errors: list[BaseException] = []
        self.seen: list[BaseException] = []  # what calls have raised
        self.done = 0
        self.is_closing = False  # calls may be refused
        default = None if case.default is None else self.values.item(case.default)
        self.cache = WriteBehindCache(
            case.capacity, self.store, default=default, on_rejected=self.on_rejected, **case.options
        )
        self.store.call_back = self.call_back
        self.workers = [
            Worker(self, number, [step for step in case.ops if step.worker == number])
            for number in range(case.threads + case.tasks)
        ]

    def on_rejected(self, keys: np.ndarray, values: np.ndarray, error: BaseException) -> None:
        for key, row in zip(self.keys.rows(keys), self.values.rows(values), strict=True):
            self.rejected[key].append(row)
        with suppress(Exception):
            self.cache.peek_many(keys)
        if self.store.rng.random() < 0.2:
            raise RuntimeError("on_rejected raises")

    def call_back(self) -> None:
        """`load_many` uses the cache."""
        self.cache.stats()
        len(self.cache)
        with suppress(Exception):
            self.cache.peek(self.keys.item(_key(self.keys, 3000)))

    def allowed(self, error: BaseException, step: Step) -> Any:
        """What a call that raised has returned: nothing was changed, or the kind of the exception."""
        if isinstance(error, ClosedError) and self.is_closing:
            return None
        if isinstance(error, BackpressureError) and self.case.options["backpressure_timeout"] is not None:
            return None
        if isinstance(error, TimeoutError) and step.name in ("flush", "close") and not is_injected_itself(error):
            return TimeoutError
        if isinstance(error, TimeoutError) and self.case.options.get("load_timeout") is not None:
            return None
        if is_injected(error):
            self.check_alone(error, step)
            return None
        if "waiting puts of subarrays fail" in TODAY and "must have shape (n, " in str(error):
            return None
        if isinstance(error, TypeError) and step.name == "clear":
            return TypeError
        if isinstance(error, KeyError):
            return KeyError
        if isinstance(error, ValueError) and "different keys" in str(error):
            return ValueError
        raise error

    def check_alone(self, error: BaseException, step: Step) -> None:
        """A load fails where the store does, or for the keys that cannot be loaded, and for no others."""
        with self.lock:
            is_shared = any(error is other for other in self.seen[-200:])
            self.seen.append(error)
        if is_shared and "waiters share exceptions" not in TODAY:
            raise Unexpected(f"{step} got the exception of another") from error
        if "one key fails others" in TODAY or self.case.faults.chance:
            return
        keys = {self.workers[step.worker].keys[at] for at in step.keys}
        if not keys & self.case.faults.unloadable:
            raise Unexpected(f"{step} failed for another key") from error

    # ---- driving ---------------------------------------------------------------------------------------

    def drive(self, worker: Worker) -> None:
        try:
            for step in worker.steps:
                self.done += 1
                self.litter()
                call = worker.call(step)
                with suppress(StopIteration):
                    real, _ = next(call)
                    try:
                        result = real()
                    except Exception as error:
                        result = self.allowed(error, step)
                        if result is None:
                            call.close()
                            continue
                    call.send(result)
        except BaseException as error:
            self.errors.append(error)

    def litter(self) -> None:
        if self.case.collects:
            Trash(self.cache, self.keys.item(_key(self.keys, 4000 + self.done % 3)))

    async def drive_task(self, worker: Worker) -> None:
        try:
            for step in worker.steps:
                self.done += 1
                self.litter()
                await self.step_task(worker, step)
        except Exception as error:
            self.errors.append(error)

    async def step_task(self, worker: Worker, step: Step) -> None:
        call = worker.call(step)
        with suppress(StopIteration):
            _, real = next(call)
            if real is None:
                return
            before = dict(worker.truth)
            task = asyncio.ensure_future(real())
            if step.number % 8 == 0 and step.name not in ("shared", "put_refused") and not self.closes:
                await asyncio.sleep(0)
                task.cancel()
            try:
                result = await task
            except asyncio.CancelledError:
                await self.look_again(worker, step, call, before)
                return
            except Exception as error:
                result = self.allowed(error, step)
                if result is None:
                    return
            call.send(result)

    async def look_again(
        self, worker: Worker, step: Step, call: Any, before: dict[bytes, bytes | None]
    ) -> None:
        """A call was cancelled: what it was to do is done, or not; nothing between."""
        keys = [worker.keys[at] for at in step.keys]
        if step.name in ("put", "put_many") and not worker.too_many(keys):
            with suppress(StopIteration):
                call.send(0)
        elif step.name in ("increment", "increment_many") and not worker.too_many(keys):
            for key in keys:
                if worker.read(key) is not None:
                    worker.truth[key] = worker.plus(worker.read(key), step.number)
        after = dict(worker.truth)
        keys = [key for key in before if before[key] != after[key]]
        if not keys:
            return
        array = self.keys.array(keys)
        while True:
            try:
                values, found = await self.cache.aget_many(array)
                break
            except Exception as error:
                if not is_injected(error):
                    raise
                await asyncio.sleep(0.001)
        rows = [
            row if there else None
            for row, there in zip(self.values.rows(values), found.tolist(), strict=True)
        ]
        for truth in (before, after):
            if rows == [self.case.default if truth[key] is None else truth[key] for key in keys]:
                worker.truth = truth
                return
        raise Unexpected(f"cancelled {step}: half of it is done")

    def tasks(self, workers: list[Worker]) -> None:
        async def main() -> None:
            await asyncio.gather(*map(self.drive_task, workers))

        asyncio.run(main())

    def __call__(self) -> None:
        case = self.case
        threads = [threading.Thread(target=self.drive, args=(worker,)) for worker in self.workers[: case.threads]]
        if case.tasks:
            threads.append(threading.Thread(target=self.tasks, args=(self.workers[case.threads :],)))
        healing = threading.Timer(min(case.faults.seconds, threading.TIMEOUT_MAX), self.store.heal)
        healing.daemon = True
        healing.start()
        if len(threads) == 1 and case.threads:
            self.drive(self.workers[0])  # the main thread, which waits in a way of its own
        else:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        try:
            if self.errors:
                raise self.errors[0]
            if math.isinf(case.faults.seconds):
                self.wait_for_others()
            self.store.heal()
            self.finish()
        finally:
            healing.cancel()
            self.store.heal()
            self.cache.close(60)

    def wait_for_others(self) -> None:
        """Some rows cannot be saved: all others are."""
        held = self.case.faults.unsavable | self.case.faults.undeletable
        while not self.cache.closed:
            with suppress(TimeoutError):
                self.cache.flush(0.01)
            rows = dict(self.store.rows)
            if all(
                rows.get(key) == row
                for worker in self.workers
                for key, row in worker.truth.items()
                if key not in held
            ):
                return

    def finish(self) -> None:
        """The faults have stopped."""
        if not self.cache.closed:
            self.cache.flush(60)
        self.cache._check()
        stats = self.cache.stats()
        rows = dict(self.store.rows)
        for worker in self.workers:
            for key, row in worker.truth.items():
                assert rows.pop(key, None) == row, f"the store has another row for {key!r} of {worker.number}"
            handed = self.rejected.pop(worker.refused, [])
            assert handed[-1:] == [worker.written] * (worker.written is not None), "of refused rows"
            assert set(handed) <= worker.was_written
            stats = stats._replace(rejected_rows=stats.rejected_rows - len(handed))
        at = _n(self.values)
        for n in range(SHARED):
            key = _key(self.keys, 2000 + n)
            row = rows.pop(key)
            if at is not None:
                total = self.values.number(row, at)
                assert total == self.sums[key], f"a sum of {self.sums[key]} is {total}"
        assert not rows, f"rows of nobody: {rows}"
        assert not self.rejected, f"not refused, and handed out: {self.rejected}"
        assert (stats.dirty, stats.pending, stats.rejected_rows) == (0, 0, 0), f"{stats}"
        self.cache.close(60)
        assert self.store.closed == 1
        with suppress(ClosedError):
            self.cache.get(self.keys.item(_key(self.keys, 0)))
            raise AssertionError("a closed cache was read")


class Trash:
    """A cycle whose finalizer reads, wherever the collector finds it."""

    def __init__(self, cache: WriteBehindCache, key: Any) -> None:
        self.cache, self.key, self.me = cache, key, self

    def __del__(self) -> None:
        with suppress(Exception):
            self.cache.get(self.key)


def is_injected_itself(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) and "injected" in str(error)


def run_case(case: Case) -> int:
    """Carry out a case; how many calls. Whoever waits for ever ends the process, with all stacks."""
    dog = threading.Timer(PATIENCE, _bite, (case,))
    dog.daemon = True
    dog.start()
    threshold = gc.get_threshold()
    if case.collects:
        gc.set_threshold(7)
    try:
        with mock.patch.multiple(flusher, FIRST_DELAY=0.001, LONGEST_DELAY=0.02):
            run = Run(case)
            run()
    finally:
        gc.set_threshold(*threshold)
        dog.cancel()
    return run.done


def _bite(case: Case) -> None:
    print(case.program(), "hangs:", sep="\n", flush=True)
    faulthandler.dump_traceback(file=sys.stdout, all_threads=True)
    sys.stdout.flush()
    os._exit(1)
