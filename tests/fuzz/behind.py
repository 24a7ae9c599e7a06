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
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from fuzz.codec import Codec
from fuzz.faults import InjectingStore, is_injected
from fuzz.worker import (
    CANCELLED,
    SHARED,
    Case,
    Step,
    UnexpectedError,
    Worker,
    draw_case,
    number_at,
    packed_key,
    zeroed,
)
from slabcache import BackpressureError, ClosedError, WriteBehindCache
from slabcache.behind import flusher

AT_ONCE = ("elsewhere", "invalidate_many", "scan_keys", "snapshot", "stats")  # an event loop may call them
PATIENCE = 300.0  # seconds until the watchdog bites; a case takes one or two


class Run:
    """One case, carried out."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.keys, self.values = Codec(case.key, "key"), Codec(case.value, "value")
        rng = Random(case.seed)
        rows = {
            packed_key(self.keys, n): zeroed(self.values, self.values.draw(rng)) for n in range(case.stored)
        }
        self.sums: dict[bytes, int] = defaultdict(int)
        for n in range(SHARED):
            rows[packed_key(self.keys, 2000 + n)] = zeroed(self.values, bytes(self.values.size))
        self.store = InjectingStore(self.keys, self.values, rows, case.faults, rng)
        self.closes = any(step.name == "close" for step in case.ops)
        self.lock = threading.Lock()
        self.rejected: dict[bytes, list[bytes]] = defaultdict(list)
        self.errors: list[BaseException] = []
        self.seen: list[BaseException] = []  # what calls have raised
        self.done = 0
        self.looked_up = 0
        self.is_calm = not case.collects  # no call was given up
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
            self.cache.peek(self.keys.item(packed_key(self.keys, 3000)))

    def allowed(self, error: BaseException, step: Step) -> Any:
        """What a call that raised has returned: nothing was changed, or the kind of the exception."""
        if isinstance(error, ClosedError) and self.is_closing:
            return None
        if isinstance(error, BackpressureError) and self.case.options["backpressure_timeout"] is not None:
            return None
        if (
            isinstance(error, TimeoutError)
            and step.name in ("flush", "close")
            and not is_injected_itself(error)
        ):
            return TimeoutError
        if isinstance(error, TimeoutError) and self.case.options.get("load_timeout") is not None:
            return None
        if is_injected(error):
            self.check_alone(error, step)
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
        if is_shared:
            raise UnexpectedError(f"{step} got the exception of another") from error
        if self.case.faults.chance:
            return
        keys = {self.workers[step.worker].keys[at] for at in step.keys}
        if not keys & self.case.faults.unloadable:
            raise UnexpectedError(f"{step} failed for another key") from error

    # ---- driving ---------------------------------------------------------------------------------------

    def drive(self, worker: Worker) -> None:
        try:
            for step in worker.steps:
                self.done += 1
                self.litter()
                self.carry_out(worker, step)
        except BaseException as error:
            self.errors.append(error)

    def carry_out(self, worker: Worker, step: Step) -> None:
        call = worker.call(step)
        with suppress(StopIteration):
            real, _ = next(call)
            try:
                result = real()
            except Exception as error:
                result = self.allowed(error, step)
                if result is None:
                    self.is_calm = False
                    return
            self.count(step)
            call.send(result)

    def count(self, step: Step) -> None:
        if step.name in ("get", "getitem", "setdefault", "get_many", "get_refused"):
            with self.lock:
                self.looked_up += len(step.keys)

    def litter(self) -> None:
        if self.case.collects:
            Trash(self.cache, self.keys.item(packed_key(self.keys, 4000 + self.done % 3)), 20)

    async def drive_task(self, worker: Worker) -> None:
        try:
            for step in worker.steps:
                self.done += 1
                self.litter()
                await self.step_task(worker, step)
        except Exception as error:
            self.errors.append(error)

    async def step_task(self, worker: Worker, step: Step) -> None:
        if step.name in AT_ONCE:
            self.carry_out(worker, step)
            return
        call = worker.call(step)
        with suppress(StopIteration):
            _, real = next(call)
            if real is None:
                return
            before = dict(worker.truth)
            task = asyncio.ensure_future(real())
            if (
                step.number % CANCELLED == 0
                and step.name not in ("shared", "put_refused")
                and not self.closes
            ):
                await asyncio.sleep(0)
                task.cancel()
            try:
                result = await task
            except asyncio.CancelledError:
                self.is_calm = False
                await self.look_again(worker, step, call, before)
                return
            except Exception as error:
                result = self.allowed(error, step)
                if result is None:
                    self.is_calm = False
                    return
            self.count(step)
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
        raise UnexpectedError(f"cancelled {step}: half of it is done")

    def tasks(self, workers: list[Worker]) -> None:
        async def main() -> None:
            await asyncio.gather(*map(self.drive_task, workers))

        asyncio.run(main())

    def __call__(self) -> None:
        case = self.case
        by_threads, by_tasks = self.workers[: case.threads], self.workers[case.threads :]
        threads = [threading.Thread(target=self.drive, args=(worker,)) for worker in by_threads[1:]]
        loops = [by_tasks[::2], by_tasks[1::2]]
        threads += [threading.Thread(target=self.tasks, args=(loop,)) for loop in loops[not by_threads :]]
        healing = threading.Timer(min(case.faults.seconds, threading.TIMEOUT_MAX), self.store.heal)
        healing.daemon = True
        healing.start()
        for thread in threads:
            thread.start()
        with self.signals():  # in the main thread, which waits in a way of its own
            if by_threads:
                self.drive(by_threads[0])
            else:
                self.tasks(loops[0])
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
            self.cache.close()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Where finalizers read, a handler of signals does, too."""
        key, is_busy = self.keys.item(packed_key(self.keys, 4003)), False

        def handle(*_: object) -> None:
            nonlocal is_busy
            if not is_busy:
                is_busy = True
                with suppress(Exception):
                    self.cache.get(key)
                is_busy = False

        if self.case.collects:
            signal.signal(signal.SIGALRM, handle)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            yield
        finally:
            if self.case.collects:
                signal.setitimer(signal.ITIMER_REAL, 0)
                # Not what was there before: Python raises an error where the default meets a late signal.
                signal.signal(signal.SIGALRM, lambda *_: None)

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
            self.cache.flush()
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
        at = number_at(self.values)
        for n in range(SHARED):
            key = packed_key(self.keys, 2000 + n)
            row = rows.pop(key)
            if at is not None:
                total = self.values.number(row, at)
                assert total == self.sums[key], f"a sum of {self.sums[key]} is {total}"
        if self.is_calm:
            assert stats.hits + stats.misses == self.looked_up, f"{self.looked_up} look-ups are not {stats}"
        assert not rows, f"rows of nobody: {rows}"
        assert not self.rejected, f"not refused, and handed out: {self.rejected}"
        assert (stats.dirty, stats.pending, stats.rejected_rows) == (0, 0, 0), f"{stats}"
        self.cache.close()
        assert (self.store.closed, self.store.late_writes) == (1, 0)
        with suppress(ClosedError):
            self.cache.get(self.keys.item(packed_key(self.keys, 0)))
            raise AssertionError("a closed cache was read")


__all__ = ["draw_case", "run_case"]


class Trash:
    """A cycle whose finalizer reads, wherever the collector finds it, and leaves another."""

    def __init__(self, cache: WriteBehindCache, key: Any, left: int) -> None:
        self.cache, self.key, self.left, self.me = cache, key, left, self

    def __del__(self) -> None:
        with suppress(Exception):
            self.cache.get(self.key)
        if self.left:
            Trash(self.cache, self.key, self.left - 1)


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
