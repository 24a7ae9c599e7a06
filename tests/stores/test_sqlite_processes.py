"""SQLiteStore used by several threads and several processes, forked ones among them, at the same time."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from slabcache.errors import ClosedError
from slabcache.stores import SQLiteStore
from support.scripts import command, run
from support.sqlite_file import execute
from support.threads import beside, together


def open_store(path: Path) -> SQLiteStore:
    return SQLiteStore(path, table="states", key="u4", value="u8", busy_timeout=600)


# ---- threads -------------------------------------------------------------------------------------------


def test_threads_read_whole_batches_while_one_writes(path: Path) -> None:
    keys = np.arange(1500, dtype="u4")  # several SELECTs
    torn: list[np.ndarray] = []
    with closing(open_store(path)) as store:
        store.save_many(keys, np.zeros(1500, "u8"))
        stop = threading.Event()

        def read() -> None:
            last = 0
            while not stop.is_set():
                values, found = store.load_many(keys)
                if not found.all() or (values != values[0]).any() or values[0] < last:
                    torn.append(values)
                last = int(values[0])

        with beside(*[read] * 4):
            for rounds in range(1, 100):
                store.save_many(keys, np.full(1500, rounds, "u8"))
                assert store.load_many(keys[:1])[0].tolist() == [rounds]
            stop.set()
    assert not torn


def test_threads_that_write(path: Path) -> None:
    with closing(open_store(path)) as store:

        def write(me: int) -> None:
            keys = np.arange(me * 100, me * 100 + 100, dtype="u4")
            for number in range(20):
                store.save_many(keys, np.full(100, number, "u8"))
                assert (store.load_many(keys)[0] == number).all()
            store.delete_many(keys[:50])

        together(*(partial(write, me) for me in range(4)))
        assert store.load_many(np.arange(400, dtype="u4"))[1].sum() == 200


def test_close_waits_for_calls_under_way(path: Path) -> None:
    """And those that come later are refused; none meets a connection that has been closed."""
    keys = np.arange(2000, dtype="u4")
    for _ in range(10):
        store = open_store(path)
        store.save_many(keys, keys.astype("u8"))

        def read(store: SQLiteStore = store) -> None:
            while True:
                try:
                    store.load_many(keys)
                except ClosedError:
                    return

        with beside(read, read, read):
            store.load_many(keys)
            store.close()


# ---- other processes -----------------------------------------------------------------------------------


def test_what_another_process_saves_is_seen(path: Path) -> None:
    script = """
        import sys
        import numpy as np
        from slabcache.stores import SQLiteStore

        store = SQLiteStore(sys.argv[1], table="states", key="u4", value="u8")
        assert store.load_many(np.array([1], "u4"))[0].tolist() == [10]
        store.save_many(np.array([1, 2], "u4"), np.array([11, 22], "u8"))
        store.delete_many(np.array([3], "u4"))
        store.close()
    """
    with closing(open_store(path)) as store:
        keys = np.array([1, 2, 3], "u4")
        store.save_many(keys[::2], np.array([10, 30], "u8"))
        assert store.load_many(keys)[0].tolist() == [10, 0, 30]
        run(script, path)
        assert store.load_many(keys)[0].tolist() == [11, 22, 0]
        store.save_many(keys[:1], np.array([12], "u8"))
        assert store.load_many(keys)[1].tolist() == [True, True, False]


WRITER = """
    import sys
    import numpy as np
    from slabcache.stores import SQLiteStore

    print("ready", flush=True)
    sys.stdin.readline()
    me = int(sys.argv[2])
    store = SQLiteStore(sys.argv[1], table="states", key="u4", value="u8", busy_timeout=600)
    keys = np.arange(me * 100, me * 100 + 100, dtype="u4")
    for number in range(30):
        store.save_many(keys, np.full(100, number, "u8"))
        assert (store.load_many(keys)[0] == number).all()
    store.close()
"""


def test_processes_that_create_the_file_together(path: Path) -> None:
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen(command(WRITER, path, me), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for me in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all at once
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors
    with closing(open_store(path)) as store:
        values, found = store.load_many(np.arange(400, dtype="u4"))
    assert found.all()
    assert (values == 29).all()


def test_killed_at_any_moment_nothing_acknowledged_is_lost(path: Path) -> None:
    script = """
        import sys
        import numpy as np
        from slabcache.stores import SQLiteStore

        store = SQLiteStore(sys.argv[1], table="states", key="u4", value="u8")
        number = int(store.load_many(np.array([0], "u4"))[0][0])
        keys = np.arange(500, dtype="u4")
        while True:
            number += 1
            store.save_many(keys, np.full(500, number, "u8"))
            print(number, flush=True)
    """
    acknowledged = 0
    for batches in (1, 7, 40, 100):
        with subprocess.Popen(command(script, path), stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(batches):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout.read().splitlines():
                acknowledged = int(line)
        assert writer.returncode == -signal.SIGKILL
        with closing(open_store(path)) as store:
            values, found = store.load_many(np.arange(500, dtype="u4"))
        assert found.all()
        assert (values == values[0]).all()  # whole batches
        assert values[0] in (acknowledged, acknowledged + 1)
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]


# ---- fork ----------------------------------------------------------------------------------------------

FORK = """
    import gc, os, sys, tempfile, threading, warnings
    import numpy as np
    from slabcache.stores import SQLiteStore
    from support.forks import child, wait
    from support.sqlite_file import execute
    from support.threads import beside

    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "x.db")

    def open_files():
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return [target for target in map(os.path.realpath, links) if target.startswith(directory)]

    def integrity():
        assert execute(path, "PRAGMA integrity_check") == [("ok",)]

    keys = np.arange(1000, dtype="u4")
    store = SQLiteStore(path, table="t", key="u4", value="u8", busy_timeout=200)
    store.save_many(keys, np.zeros(1000, "u8"))
    store.load_many(keys)
"""

OWN_CONNECTIONS = """
    assert open_files()

    def work():
        assert not open_files(), open_files()  # nothing of the parent's that could be used or closed
        values, found = store.load_many(keys)
        assert found.all()
        store.save_many(keys[:10], np.full(10, os.getpid(), "u8"))
        assert (store.load_many(keys[:10])[0] == os.getpid()).all()
        wait(child(lambda: store.load_many(keys)))  # a grandchild
        assert (store.load_many(keys[:10])[0] == os.getpid()).all()

    def close():
        work()
        store.close()
        assert not open_files()

    # However a child ends: at once, by the interpreter's own end, with the store closed or left.
    warnings.simplefilter("ignore", ResourceWarning)
    for job in (work, close, lambda: None):
        for leave in (os._exit, sys.exit):
            pid = child(job, leave=leave)
            store.save_many(keys[10:], np.full(990, pid, "u8"))
            wait(pid)
            assert (store.load_many(keys[10:])[0] == pid).all()
            integrity()
    store.close()
    print("done")
"""

BUSY = """
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            store.save_many(keys, np.full(1000, number, "u8"))

    def read():
        while not stop.is_set():
            values, found = store.load_many(keys)
            assert found.all() and (values == values[0]).all()

    def work():
        assert not open_files(), open_files()
        for _ in range(5):
            values, found = store.load_many(keys)
            assert found.all() and (values == values[0]).all(), "half a batch"
        with beside(lambda: store.load_many(keys)):
            pass
        store.save_many(keys + 1000, np.full(1000, os.getpid(), "u8"))
        assert (store.load_many(keys + 1000)[0] == os.getpid()).all()

    with beside(write, read, read):
        for _ in range(8):
            wait(child(work))
            store.load_many(keys)
        stop.set()
    integrity()
    store.close()
    print("done")
"""

MANY_FORKERS = """
    # Several threads fork, while stores come and go.
    def forking():
        for turn in range(20):
            own = SQLiteStore(path, table="t", key="u4", value="u8", busy_timeout=200)
            pid = child(lambda: (own.load_many(keys), store.load_many(keys)))
            own.load_many(keys)
            wait(pid)
            own.close()

    with beside(forking, forking, forking):
        pass
    integrity()
    store.close()
    print("done")
"""

CLOSED = """
    store.close()
    from slabcache.errors import ClosedError

    def work():
        try:
            store.load_many(keys)
        except ClosedError:
            return
        raise AssertionError("open again")

    wait(child(work))
    print("done")
"""

OUTLIVES = """
    # A child goes on when its parent has closed the file, and would have removed the log.
    ready, go = os.pipe(), os.pipe()

    def work():
        store.load_many(keys)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        values, found = store.load_many(keys)
        assert (values == 7).all(), values
        store.save_many(keys, np.full(1000, 8, "u8"))

    pid = child(work)
    os.read(ready[0], 1)
    store.save_many(keys, np.full(1000, 7, "u8"))
    store.close()
    os.write(go[1], b"x")
    wait(pid)
    integrity()
    store = SQLiteStore(path, table="t", key="u4", value="u8")
    assert (store.load_many(keys)[0] == 8).all()
    store.close()
    print("done")
"""


HALF_CLOSED = """
    # A thread forks while another, which forks or closes a store, has a file half closed.
    import time
    from slabcache.stores.sqlite_connections import Connections

    drop, closing = Connections._drop, threading.Event()

    def slow(self, opened):
        if threading.current_thread().name == "slow":
            closing.set()
            time.sleep(0.3)
        drop(self, opened)

    Connections._drop = slow
    other = SQLiteStore(path, table="t", key="u4", value="u8")
    other.load_many(keys)
    for work in (lambda: wait(child(lambda: store.load_many(keys))), other.close):
        store.load_many(keys)
        closing.clear()
        thread = threading.Thread(target=work, name="slow")
        thread.start()
        closing.wait()
        wait(child(lambda: store.load_many(keys)))
        thread.join()
        if work != other.close:
            other.load_many(keys)
    store.close()
    print("done")
"""

FINALIZED = """
    # A store is dropped, and its finalizer runs in the middle of a call of another that a fork waits for.
    warnings.simplefilter("ignore", ResourceWarning)
    store.close()
    used = SQLiteStore(path, table="t", key="u4", value="u8", busy_timeout=0.1)
    dropped = SQLiteStore(path + "2", table="t", key="u4", value="u8", busy_timeout=0.1)
    dropped.load_many(keys)
    gc.disable()
    del dropped
    inside, forking = threading.Event(), threading.Event()
    os.register_at_fork(before=forking.set)  # handlers run in reverse order: before those of the stores

    def call():
        with used._connections.reading():
            inside.set()
            forking.wait()
            gc.collect()

    with beside(call):
        inside.wait()
        wait(child(lambda: used.load_many(keys)))
    used.close()
    print("done")
"""

THREAD_POOL = """
    # A call that a fork waits for gives a thread pool a task, as a finalizer may. That takes a lock that a
    # fork takes, too, and holds: the fork must come to that after it has waited.
    import concurrent.futures

    used = SQLiteStore(path, table="t", key="u4", value="u8", busy_timeout=0.1)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    inside, forking = threading.Event(), threading.Event()
    os.register_at_fork(before=forking.set)

    def call():
        with used._connections.reading():
            inside.set()
            forking.wait()
            while not used._connections._process._bells:  # until the fork waits
                pass
            pool.submit(int)

    thread = threading.Thread(target=call)
    thread.start()
    inside.wait()
    wait(child(lambda: used.load_many(keys)))
    thread.join()
    used.close()
    print("done")
"""


@pytest.mark.parametrize(
    "script",
    [OWN_CONNECTIONS, BUSY, MANY_FORKERS, HALF_CLOSED, CLOSED, OUTLIVES, FINALIZED, THREAD_POOL],
    ids=[
        "own connections",
        "busy",
        "many forkers",
        "half closed",
        "closed",
        "outlives",
        "finalized",
        "thread pool",
    ],
)
def test_fork(script: str) -> None:
    assert run(FORK + script) == "done\n"
