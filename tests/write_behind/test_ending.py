"""close(), the end of the process, and fork()."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from slabcache import ClosedError
from support.faulty_store import FaultyStore, make


def test_close_says_how_many_rows_are_unsaved_and_goes_on_trying() -> None:
    store, cache = make()
    store.failure = OSError("down")
    cache.put_many([1, 2], [1, 2])
    with pytest.raises(TimeoutError, match="2 rows"):
        cache.close(0.05)
    store.failure = None
    cache.close()
    cache.close()
    assert store.closed == 1
    assert store.rows == {1: 1, 2: 2}


def test_a_closed_cache_refuses_calls() -> None:
    _, cache = make()
    cache[1] = 1
    cache.close()
    for call in (
        lambda: cache[1],
        lambda: cache.get(1),
        lambda: cache.__setitem__(1, 2),
        lambda: cache.increment(1),
        lambda: cache.get_many([1]),
        lambda: cache.put_many([1], [1]),
        lambda: cache.delete_many([1]),
        lambda: cache.pop(1, None),
        lambda: cache.setdefault(1, 1),
        lambda: cache.popitem(),
        lambda: cache.flush(),
        lambda: cache.__enter__(),
        lambda: len(cache),
        lambda: list(cache),
        lambda: cache.snapshot(),
        lambda: cache.reset_stats(),
        lambda: 1 in cache,
    ):
        with pytest.raises(ClosedError):
            call()
    assert issubclass(ClosedError, ValueError)
    assert cache.stats().flushed_rows == 1, "what was, may be told"
    assert repr(cache).startswith("<WriteBehindCache of 1/8")


def test_a_key_that_closes_the_cache_while_it_is_read_is_not_written() -> None:
    store, cache = make()

    class Closing:
        def __index__(self) -> int:
            cache.close()
            return 5

    with pytest.raises(ClosedError):
        cache[Closing()] = 1
    assert cache._unsaved()[0] == 0
    assert store.rows == {}


def test_a_write_is_not_lost_with_the_last_reference() -> None:
    store, cache = make(flush_interval=0.0)
    cache[1] = 10
    del cache
    store.saving.wait()
    while store.rows != {1: 10}:
        pass


SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
from support.faulty_store import FaultyStore
from slabcache import WriteBehindCache
class Printing(FaultyStore):
    def save_many(self, keys, values):
        super().save_many(keys, values)
        os.write(1, b"saved %d\\n" % len(keys))
store = Printing(rows={{1: 10}})
cache = WriteBehindCache(8, store, flush_interval=1000, exit_timeout=0.2)
cache[2] = 20
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(tests=str(__import__("pathlib").Path(__file__).parent.parent)) + textwrap.dedent(
        body
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_leaving_the_interpreter_flushes() -> None:
    done = run("")
    assert done.stdout == "saved 1\n", done.stderr
    assert done.returncode == 0


def test_leaving_the_interpreter_with_a_store_that_fails_is_a_log_line() -> None:
    done = run("store.failure = OSError('down')")
    assert done.returncode == 0
    assert "leaving the interpreter, Printing: 1 rows are not in the store" in done.stderr


def test_a_forked_child_reads_and_writes_nothing() -> None:
    done = run(
        """
        child = os.fork()
        if child == 0:
            assert cache[2] == 20 and cache[1] == 10
            for write in (
                lambda: cache.__setitem__(3, 3), lambda: cache.put_many([3], [3]), lambda: cache.pop(1)
            ):
                try:
                    write()
                except RuntimeError as error:
                    assert "forked" in str(error)
                else:
                    os._exit(3)
            cache.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "saved 1\n", "the parent's, at its exit"


def test_a_forked_child_loads_what_its_parent_was_loading() -> None:
    done = run(
        """
        import signal, threading
        store.gate.clear()
        reader = threading.Thread(target=cache.get, args=(1,))
        reader.start()
        store.loading.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(30)    # it would wait for a thread that it does not have
            store.gate = threading.Event()
            store.gate.set()
            assert cache[1] == 10
            cache.stats()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        store.gate.set()
        reader.join()
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_process_of_multiprocessing_flushes_at_its_end() -> None:
    done = run(
        """
        import multiprocessing
        def work():
            cache = WriteBehindCache(8, Printing(), flush_interval=1000)
            cache[5] = 50
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join()
        assert child.exitcode == 0
        """
    )
    assert done.stdout == "saved 1\nsaved 1\n", done.stderr


def test_who_closes_as_well_waits_for_the_first() -> None:
    store, cache = make()
    cache[1] = 1
    store.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.close)
        store.saving.wait()
        second = pool.submit(lambda: (cache.close(), store.closed))
        with pytest.raises(TimeoutError):
            cache.close(0.01)
        store.gate.set()
        first.result()
        assert second.result()[1] == 1


def test_close_waits_for_loads_under_way() -> None:
    store, cache = make(FaultyStore(rows={1: 10}))
    store.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        read = pool.submit(cache.get, 1)
        store.loading.wait()
        close = pool.submit(cache.close)
        while not cache.closed:
            pass
        assert store.closed == 0
        store.gate.set()
        close.result()
        assert store.closed == 1
        with pytest.raises(ClosedError):
            read.result()


@pytest.mark.parametrize("interrupts", [0, 2])
def test_a_store_that_fails_takes_no_time_of_others_at_the_end(interrupts: int) -> None:
    """Nor does an interrupt of the wait for it."""
    done = run(
        f"""
        import signal
        cache.close()
        class Failing(FaultyStore):
            def save_many(self, keys, values):
                if self.interrupts:
                    self.interrupts -= 1
                    os.kill(os.getpid(), signal.SIGINT)
                raise OSError("down")
        failing = Failing()
        failing.interrupts = 0
        first = WriteBehindCache(100, failing, flush_interval=1000, exit_timeout=2)
        first[1] = 1
        failing.interrupts = {interrupts}
        second = WriteBehindCache(60000, Printing(), flush_interval=1000, exit_timeout=2, flush_rows=50000)
        second.put_many(range(50000), range(50000))
        """
    )
    assert "saved 50000\n" in done.stdout, done.stderr
    assert "leaving the interpreter, Failing: " in done.stderr
    assert "leaving the interpreter, Printing" not in done.stderr


def test_leaving_the_interpreter_while_another_thread_closes() -> None:
    done = run(
        """
        import threading
        store.gate.clear()
        threading.Thread(target=cache.close, daemon=True).start()
        store.saving.wait()
        cache[3] = 30
        store.gate.set()
        while not cache.closed:
            pass
        """
    )
    assert done.stdout == "saved 1\nsaved 1\n", done.stderr


def test_leaving_the_interpreter_flushes_while_what_the_store_needs_is_there() -> None:
    """Thread pools take no work soon after, and drivers have handlers of their own."""
    done = run(
        """
        import atexit
        from concurrent.futures import ThreadPoolExecutor
        cache.close()

        class Driver(Printing):
            pool = ThreadPoolExecutor(1)
            def __init__(self):
                super().__init__()
                self.pool.submit(int).result()  # since Python 3.12 no thread can be started at the end
                atexit.register(self.shut_down)
            def shut_down(self):
                self.failure = OSError("the driver has ended")
            def save_many(self, keys, values):
                self.pool.submit(super().save_many, keys, values).result()

        driver = Driver()
        cache = WriteBehindCache(8, driver, flush_interval=1000, exit_timeout=5)
        cache[5] = 50

        class Late(Printing):
            def __init__(self):
                super().__init__()
                atexit.register(self.shut_down)
            shut_down = Driver.shut_down

        late = WriteBehindCache(8, Late(), flush_interval=1000, exit_timeout=5)
        import threading
        def write_late():
            threading.main_thread().join()
            late[6] = 60
        threading.Thread(target=write_late).start()
        """
    )
    assert done.stdout == "saved 1\n" * 3, done.stderr
    assert "leaving" not in done.stderr
