"""Code of the user's that runs at any step of ours: finalizers above all, in whatever thread collects.

It may use the cache, and it may wait for another thread that does. So no lock may be held at any step, and
each step must leave what other calls find in order. Here such code runs at every instruction of the modules
that share something between threads.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import slabcache
from slabcache import WriteBehindCache
from write_behind.faulty_store import FaultyStore

FOLDER = Path(slabcache.__file__).parent
FILES = {str(FOLDER / f"{name}.py") for name in ("loader", "flusher", "waiting", "workers", "write_behind")}
PATIENCE = 60  # seconds: no limit of speed, what waits for itself never ends


class Interrupter:
    """Runs an action at each instruction of our modules, in threads that are started while it is active."""

    def __init__(self) -> None:
        self.action: Callable[[], object] = int
        self.steps = 0
        self.is_active = True
        self.failure: BaseException | None = None
        self.busy = threading.local()

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self.is_active:
            sys.settrace(None)  # a thread that ended with it would keep Python from forgetting it
            return None
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not getattr(self.busy, "now", False) and self.failure is None:
            self.busy.now = True
            try:
                self.steps += 1
                self.action()
            except BaseException as error:
                self.failure = error
            finally:
                self.busy.now = False
        return self.trace

    @contextmanager
    def active(self) -> Iterator[None]:
        threading.settrace(self.trace)
        try:
            yield
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
            self.action = int
            self.is_active = False
            if self.failure is not None:
                raise self.failure


def in_another_thread(call: Callable[[], object], pool: ThreadPoolExecutor) -> None:
    pool.submit(call).result(PATIENCE)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_a_finalizer_may_use_the_cache_at_every_step(kind: str, elsewhere: bool) -> None:
    store = FaultyStore(rows={key: key for key in range(100_000)})
    numbers = iter(range(100, 100_000))
    helper = ThreadPoolExecutor(1)
    helper.submit(int).result()  # started before threads are traced

    def use() -> None:
        number = next(numbers)
        assert cache[number] == number
        if kind == "writes":
            cache[number] = number

    interrupter = Interrupter()
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
            pool.submit(str).result()
    assert interrupter.steps > 1000
    helper.shutdown()
    cache.close()
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
            pool.submit(str).result()
    assert {text for text in told if "that this thread is loading" not in text} == set()
    assert cache._loader._flights.running == 0
    cache.close()


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
