"""Code of the user's that runs at any step of ours: finalizers above all, in whatever thread collects.

It may use the cache, and it may wait for another thread that does. So no lock may be held at any step, and
each step must leave what other calls find in order. Here such code runs at every instruction of the modules
that share something between threads.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

from slabcache import WriteBehindCache, write_behind
from slabcache.behind import ending, flusher, loader, waiting, workers
from support.faulty_store import FaultyStore

MODULES = (ending, loader, flusher, waiting, workers, write_behind)
NAMES = {module.__name__ for module in MODULES}
FILES = {module.__file__ for module in MODULES}
PATIENCE = 60  # seconds: no limit of speed, what waits for itself never ends


class Interrupter:
    """Runs an action at each instruction of our modules, in all threads but those that are spared."""

    def __init__(self) -> None:
        self.action: Callable[[], object] = int
        self.steps = 0
        self.is_active = True
        self.failure: BaseException | None = None
        self.spared = threading.local()

    def spare(self) -> None:
        """This thread, from now on."""
        self.spared.now = True

    def step(self, *_: object) -> None:
        if not self.is_active or getattr(self.spared, "now", False) or self.failure is not None:
            return
        self.spared.now = True
        try:
            self.steps += 1
            self.action()
        except BaseException as error:
            self.failure = error
        finally:
            self.spared.now = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Threads of ours must have ended when this ends."""
        self.spare()
        with stepping(self.step):
            try:
                yield
            finally:
                self.action = int
                self.is_active = False
        if self.failure is not None:
            raise self.failure


if sys.version_info >= (3, 12):

    @contextmanager
    def stepping(step: Callable[..., None]) -> Iterator[None]:
        """With `sys.settrace` the process would crash: a thread that ends its tracing changes the code that
        others run."""
        tool, events = sys.monitoring.DEBUGGER_ID, sys.monitoring.events
        codes = codes_of(MODULES)
        sys.monitoring.use_tool_id(tool, "steps")
        sys.monitoring.register_callback(tool, events.INSTRUCTION, step)
        for code in codes:
            sys.monitoring.set_local_events(tool, code, events.INSTRUCTION)
        try:
            yield
        finally:
            for code in codes:
                sys.monitoring.set_local_events(tool, code, events.NO_EVENTS)
            sys.monitoring.register_callback(tool, events.INSTRUCTION, None)
            sys.monitoring.free_tool_id(tool)

    def codes_of(modules: Iterable[ModuleType]) -> set[CodeType]:
        """All that their functions and methods are made of."""
        pending = [thing for module in modules for thing in vars(module).values()]
        codes: set[CodeType] = set()
        while pending:
            thing = pending.pop()
            if isinstance(thing, CodeType) and thing not in codes and thing.co_filename in FILES:
                codes.add(thing)
                pending += thing.co_consts
            elif isinstance(thing, type) and thing.__module__ in NAMES:
                pending += vars(thing).values()
            elif isinstance(thing, FunctionType):
                pending.append(inspect.unwrap(thing).__code__)
            elif isinstance(thing, property):
                pending.append(thing.fget)
            elif isinstance(thing, staticmethod | classmethod):
                pending.append(thing.__func__)
        return codes

else:

    @contextmanager
    def stepping(step: Callable[..., None]) -> Iterator[None]:
        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_code.co_filename not in FILES:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                step()
            return trace

        threading.settrace(trace)
        try:
            yield
        finally:
            threading.settrace(None)  # type: ignore[arg-type]


def in_another_thread(call: Callable[[], object], pool: ThreadPoolExecutor) -> None:
    pool.submit(call).result(PATIENCE)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_a_finalizer_may_use_the_cache_at_every_step(kind: str, elsewhere: bool) -> None:
    store = FaultyStore(rows={key: key for key in range(100_000)})
    numbers = iter(range(100, 100_000))
    helper = ThreadPoolExecutor(1)

    def use() -> None:
        number = next(numbers)
        assert cache[number] == number
        if kind == "writes":
            cache[number] = number

    interrupter = Interrupter()
    helper.submit(interrupter.spare).result()
    with interrupter.active():
        cache = WriteBehindCache(200_000, store, flush_interval=0.0, flush_rows=3)
        interrupter.action = lambda: in_another_thread(use, helper) if elsewhere else use()
        with ThreadPoolExecutor(1) as pool:

            def work() -> None:
                assert cache.get_many([1, 2, 3])[0].tolist() == [1, 2, 3]
                cache.increment(4)
                cache.put_many([5, 6], [50, 60])
                cache.pop(7)
                assert 8 in cache

            pool.submit(work).result(10 * PATIENCE)
        interrupter.is_active = False
        cache.close()
    assert interrupter.steps > 1000
    helper.shutdown()
    flights = cache._loader._flights
    assert (flights.running, flights.places, cache._loader._nested) == (0, {}, {})
    assert [store.rows.get(key) for key in range(1, 9)] == [1, 2, 3, 5, 50, 60, None, 8]
    assert all(store.rows[number] == number for number in range(100, next(numbers)))


def test_a_row_that_its_own_thread_is_loading_is_told_at_every_step() -> None:
    """There is nobody who could load it. The load itself goes on."""
    store = FaultyStore(rows={1: 10, 2: 20})
    told: list[str] = []

    def read() -> None:
        try:
            assert cache[1] == 10
        except RuntimeError as error:
            told.append(str(error))

    interrupter = Interrupter()
    with interrupter.active():
        cache = WriteBehindCache(8, store, flush_interval=1000.0)
        interrupter.action = read
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cache.get, 1).result(PATIENCE) == 10
        interrupter.is_active = False
        cache.close()
    assert {text for text in told if "that this thread is loading" not in text} == set()
    assert cache._loader._flights.running == 0


def test_a_peek_that_a_read_joins_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the threads that share a load take turns."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        store = FaultyStore(rows={key: key for key in range(500)})
        cache = WriteBehindCache(1000, store, flush_interval=1000.0)
        start = threading.Barrier(6)

        def work(number: int) -> None:
            start.wait()
            for key in range(500):
                assert (cache.peek(key) if number % 2 else cache[key]) == key
                if key % 7 == number:
                    keys = np.arange(key, min(key + 5, 500))
                    assert cache.get_many(keys)[0].tolist() == keys.tolist()

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        cache.close()
    finally:
        sys.setswitchinterval(interval)
