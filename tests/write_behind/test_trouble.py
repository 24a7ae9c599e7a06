"""What comes from outside at a bad moment: interrupts, signal handlers, errors of logging, memory and TLS."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from slabcache import ClosedError
from slabcache.behind import flusher, waiting
from support.faulty_store import FaultyStore, make


@contextmanager
def on_signal(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# ---- loads -------------------------------------------------------------------------------------------


@pytest.fixture
def no_collections() -> Iterator[None]:
    """An interrupt that meets a callback of the collector, as test tools have them, gets no further."""
    gc.disable()
    yield
    gc.enable()


def test_interrupts_leave_no_load_behind(no_collections: None) -> None:
    """At any moment of a load, which has to be there for whoever asks next."""
    interrupts = 0
    armed = False

    def interrupt(*_: object) -> None:
        if armed:
            raise KeyboardInterrupt

    store, cache = make(FaultyStore(rows={key: key for key in range(6000)}), capacity=10_000)
    rng = np.random.default_rng(3)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ThreadPoolExecutor(1) as pool:
            for key, delay in enumerate(rng.uniform(1e-6, 3e-4, 2000).tolist()):
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, delay)
                    cache.get(key)
                    cache[key] = key
                    cache.flush(60)
                    armed = False
                except KeyboardInterrupt:
                    armed = False
                    interrupts += 1
                if key % 20 == 0:
                    assert pool.submit(cache.get_many, [key, key + 2000]).result(60)[1].all()
        assert interrupts > 100
        assert cache.get_many(range(2000))[0].tolist() == list(range(2000))
        cache.close(60)
        assert not cache._loader._flights.running
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert store.closed == 1


def test_loads_that_end_their_threads_keep_no_one_waiting() -> None:
    """As one that runs an event loop of its own, in which something is cancelled."""

    async def main() -> None:
        store, cache = make(FaultyStore(rows={3: 30}))
        store.gate.clear()
        store.failing_loads = asyncio.CancelledError()
        loads = [asyncio.create_task(cache.aget(1))]
        while len(store.loads) < 1:
            await asyncio.sleep(0)
        loads.append(asyncio.create_task(cache.aget(2)))
        while len(store.loads) < 2:
            await asyncio.sleep(0)
        third = asyncio.create_task(cache.aget(3))
        await asyncio.sleep(0.01)
        store.after_load = None
        store.gate.set()
        for load in loads:
            with pytest.raises(RuntimeError, match="interrupted") as raised:
                await load
            assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        store.failing_loads = None
        with suppress(RuntimeError):  # it may have departed before
            assert await third == 30
        assert await cache.aget(3) == 30
        await cache.aclose()

    asyncio.run(main())


def test_reads_that_were_given_up_are_not_loaded() -> None:
    """However many there were while the store did not answer."""

    async def main() -> None:
        store, cache = make(FaultyStore(rows={key: key for key in range(2000)}), capacity=3000)
        store.gate.clear()
        held = [asyncio.create_task(cache.aget(key)) for key in (0, 1)]
        for task in held:
            await asyncio.sleep(0.02)
            assert not task.done()
        kept = asyncio.create_task(cache.aget(1500))
        for key in range(2, 1000):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cache.aget_many([key, key, 1500 + key % 2]), 0)
        store.gate.set()
        assert await kept == 1500
        assert [await task for task in held] == [0, 1]
        assert sum(len(keys) for keys in store.loads) <= 4
        assert not cache._loader._flights.places
        assert await cache.aget(999) == 999
        await cache.aclose()

    asyncio.run(main())


def test_an_interrupted_write_is_saved_nevertheless(no_collections: None) -> None:
    armed = False

    def interrupt(*_: object) -> None:
        if armed:
            raise KeyboardInterrupt

    _, cache = make(flush_interval=0.0)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for key, delay in enumerate(np.random.default_rng(5).uniform(1e-6, 2e-5, 1000).tolist()):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, delay)
                cache[key % 8] = key
                armed = False
            except KeyboardInterrupt:
                armed = False
            while cache.stats().dirty:  # which wakes nobody
                time.sleep(0.0002)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    cache.close()


def test_an_error_that_is_kept_keeps_no_cache() -> None:
    class Chained(FaultyStore):
        def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
            if not self.rows:
                self.rows[0] = 0
                try:
                    raise OSError("inner")
                except OSError as error:
                    raise OSError("outer") from error
            super().save_many(keys, values)

    _, cache = make(Chained(), flush_interval=0.0)
    cache[1] = 1
    cache.flush()
    assert cache.stats().last_error is not None
    gone = weakref.ref(cache)
    del cache
    while gone() is not None:
        gc.collect()
        time.sleep(0.001)


def test_a_signal_handler_may_read_what_its_thread_is_loading() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    read: list[int] = []
    store.after_load = lambda: signal.raise_signal(signal.SIGUSR1)
    with on_signal(lambda *_: read.append(cache[1])):
        assert cache[1] == 10
        while not read:
            time.sleep(0.001)
    assert read == [10]
    cache.close()


def test_a_store_may_ask_the_cache_for_other_rows() -> None:
    """Though as many loads are under way as there may be."""
    both = threading.Barrier(2)

    class Asking(FaultyStore):
        def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if keys[0] < 10:
                both.wait()
                assert cache.increment(int(keys[0]) + 20) == keys[0] + 21
            return super().load_many(keys)

    _, cache = make(Asking(rows={key: key for key in range(40)}), capacity=100)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, 1)
        while not both.n_waiting:
            pass
        assert pool.submit(cache.get, 2).result() == 2
        assert first.result() == 1
    cache.close()


def test_a_store_that_asks_for_the_row_it_is_loading_is_told() -> None:
    store, cache = make()
    store.after_load = lambda: cache[1]
    with pytest.raises(RuntimeError, match="that this thread is loading"):
        cache.get(1)
    cache.close()


def test_a_load_that_has_not_begun_fails_when_the_cache_closes() -> None:
    store, cache = make(FaultyStore(rows={key: key for key in range(9)}))
    store.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        reads = []
        for key in range(3):
            store.loading.clear()
            reads.append(pool.submit(cache.get, key))
            if key < 2:
                store.loading.wait()
        while len(cache._loader._flights.places) < 3:
            pass
        closing = pool.submit(cache.close)
        while not cache._loader._is_closed:
            pass
        store.gate.set()
        closing.result()
        for read in reads:
            with pytest.raises(ClosedError):
                read.result()
    assert [keys for load in store.loads for keys in load] == [0, 1]


# ---- the thread that writes --------------------------------------------------------------------------


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk of the log is full")


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    handler = Broken()
    logging.getLogger("slabcache").addHandler(handler)
    try:
        store, cache = make()
        store.failure = OSError("down")
        cache[1] = 1
        with pytest.raises(TimeoutError):
            cache.flush(0.05)
        store.failure = None
        store.refused = {2}
        cache[2] = 2
        cache.flush(60)
        assert store.rows == {1: 1}
        cache.close(60)
    finally:
        logging.getLogger("slabcache").removeHandler(handler)


def test_an_error_of_our_own_keeps_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when memory is short between the store's calls."""
    store, cache = make(flush_rows=4, capacity=3, max_pending=20)
    part, calls = flusher.Rows.part, iter(range(100))

    def short_of_memory(rows: flusher.Rows, which: Any) -> flusher.Rows:
        if next(calls) in (0, 3):
            raise MemoryError
        return part(rows, which)

    monkeypatch.setattr(flusher.Rows, "part", short_of_memory)
    cache.put_many(range(10), range(10))
    while cache.stats().flush_errors < 2:
        cache._check()
    cache.flush(60)
    assert store.rows == {key: key for key in range(10)}
    assert cache.stats().oldest_dirty_age == 0
    cache._check()
    cache.close(60)


def test_an_error_of_the_system_is_no_refusal() -> None:
    """Though it is a ValueError, too."""
    store, cache = make()
    store.failure = ssl.SSLCertVerificationError("certificate has expired")
    cache[1] = 1
    with pytest.raises(TimeoutError):
        cache.flush(0.05)
    store.failure = None
    cache.close()
    assert store.rows == {1: 1}


@pytest.mark.parametrize("call", ["aflush", "aclose"])
def test_on_rejected_cannot_wait_in_an_event_loop_either(call: str) -> None:
    answers: list[str] = []

    def wait(*_: object) -> None:
        try:
            asyncio.run(getattr(cache, call)())
        except RuntimeError as error:
            answers.append(str(error))

    store, cache = make(on_rejected=wait)
    store.refused = {5}
    cache.put_many([5, 6], [5, 6])
    cache.flush(60)
    assert len(answers) == 1
    assert "cannot wait" in answers[0]
    cache.close()
    assert store.rows == {6: 6}


def test_a_signal_handler_may_write_and_flush_at_any_moment() -> None:
    store, cache = make(flush_interval=0.0)
    numbers = iter(range(10_000, 20_000))

    def handler(*_: object) -> None:
        key = next(numbers)
        cache[key] = key
        cache.flush(60)

    def kick() -> None:
        while not done.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            time.sleep(0.0005)

    done = threading.Event()
    kicker = threading.Thread(target=kick)
    with on_signal(handler):
        kicker.start()
        try:
            for key in range(300):
                cache[key] = key
                cache.flush(60)
        finally:
            done.set()
            kicker.join()
    cache.close()
    written = next(numbers)
    assert store.rows == {key: key for key in [*range(300), *range(10_000, written)]}


# ---- the end -----------------------------------------------------------------------------------------


def test_a_close_that_was_interrupted_goes_on_the_next_time() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.gate.clear()
    with ThreadPoolExecutor(1) as pool, on_signal(interrupt):
        read = pool.submit(cache.get, 1)
        store.loading.wait()
        main = threading.main_thread().ident
        assert main is not None

        def interrupt_close() -> None:
            while not cache._loader._is_closed:
                time.sleep(0.001)
            signal.pthread_kill(main, signal.SIGUSR1)

        threading.Thread(target=interrupt_close).start()
        with pytest.raises(KeyboardInterrupt):
            cache.close()
        assert (cache.closed, store.closed) == (True, 0)
        store.gate.set()
        cache.close()
        assert store.closed == 1
        with pytest.raises(ClosedError):
            read.result()


def test_asyncio_calls_without_patience_look_once() -> None:
    async def main() -> None:
        store, cache = make()
        await cache.aflush(0)
        await cache.aset(1, 1)
        store.gate.clear()
        with pytest.raises(TimeoutError):
            await cache.aflush(0)
        store.gate.set()
        await cache.aflush()
        await cache.aclose(0)
        assert store.closed == 1

    asyncio.run(main())


# ---- bells -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_flush_whose_bell_is_lost_rings_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = []

    class Lossy(SimpleQueue[Any]):
        """It loses the first bell of a flush."""

        def put(self, item: Any, *arguments: Any) -> None:
            if item is not None and not lost:
                lost.append(item)
                return
            super().put(item)

    monkeypatch.setattr(flusher, "SimpleQueue", Lossy)
    monkeypatch.setattr(waiting, "_LOOK_AGAIN", 0.01)
    store, cache = make(FaultyStore(), flush_interval=1000.0)
    cache[1] = 1
    if kind == "blocking":
        cache.flush()
    else:
        asyncio.run(cache.aflush())
    assert store.rows == {1: 1}
    assert len(lost) == 1
    cache.close()
