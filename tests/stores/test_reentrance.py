"""Calls of a store in the middle of its calls, as a finalizer or a signal handler may make them at any step.

At each step of the stores' code, and of what they use of `threading` and `queue`, another call is made, in
the same thread, or in another one that is waited for. A lock that is held at any of them shows as a
deadlock. The scripts are watched: what hangs is ended, and says where it stood.
"""

from __future__ import annotations

import pytest

from support.scripts import run

AT_EACH_STEP = """
    import contextlib, faulthandler, gc, os, sqlite3, sys, tempfile, threading
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    faulthandler.dump_traceback_later(120, exit=True)
    FILES = (os.sep + "stores" + os.sep, os.sep + "threading.py", os.sep + "queue.py")
    pool = ThreadPoolExecutor(1)
    how = sys.argv[1]

    class Steps:
        '''Calls `act` at each step of a `with` block, in this thread or in another that is waited for.'''

        def __init__(self, act):
            self.act = act if how == "same thread" else lambda: pool.submit(act).result()
            self.count = 0

        def __enter__(self):
            sys.settrace(self.called)

        def __exit__(self, *_):
            sys.settrace(None)
            assert self.count > 20, self.count

        def called(self, frame, event, argument):
            if frame.f_code.co_filename.endswith(FILES[1:]) or FILES[0] in frame.f_code.co_filename:
                frame.f_trace_opcodes = True
                return self.stepped
            return None

        def stepped(self, frame, event, argument):
            if event in ("opcode", "line"):  # from Python 3.12 on not each opcode is told
                self.count += 1
                self.act()
            return self.stepped
"""

SQLITE = """
    from slabcache.stores import SQLiteStore

    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "x.db")
    store = SQLiteStore(path, table="t", key="u4", value="u4")
    keys, others = np.arange(10, dtype="u4"), np.arange(10, 20, dtype="u4")
    store.save_many(others, others)

    def load():
        values, found = store.load_many(others)
        assert found.all() and (values == others).all()
"""

LOADS = """
    calls = {
        "save": lambda: store.save_many(keys, keys),
        "load": lambda: store.load_many(keys),
        "delete": lambda: store.delete_many(keys),
    }
    for number, call in enumerate(calls.values()):
        with Steps(load):
            call()
        assert store.load_many(keys)[1].all() == (number < 2)
    print("done")
"""

OPENING = """
    def opened():
        other = SQLiteStore(path, table="t", key="u4", value="u4")
        other.load_many(keys)
        return other

    with Steps(load):
        other = opened()
    with Steps(load):
        other.close()
    store.save_many(keys, keys)
    os.unlink(path)
    def load_or_fail():
        # With the file gone in the middle of calls SQLite may raise for a moment.
        with contextlib.suppress(sqlite3.OperationalError):
            store.load_many(keys)

    with Steps(load_or_fail), contextlib.suppress(sqlite3.OperationalError):  # that the file is gone is found
        store.load_many(keys)
        store.save_many(others, others)
    store.save_many(others, others)
    load()
    store.close()
    print("done")
"""

FORKING = """
    from slabcache.stores import sqlite_connections
    store._connections._patience = 0.0  # another thread does not wait for the end of the fork

    def load_or_refused():
        try:
            load()
        except sqlite3.OperationalError as error:
            assert "another thread has been forking" in str(error)
            refused.append(error)

    refused = []
    with Steps(load_or_refused):
        sqlite_connections._before_fork()
        sqlite_connections._after_fork_in_parent()
    assert bool(refused) == (how == "another thread")
    load()
    print("done")
"""

SAVES = """
    # A save in the middle of a save: refused where it would wait for itself, never a deadlock.
    store._connections._busy_timeout = 0.0  # another thread does not wait for its turn
    outcomes = {"saved": 0, "refused": 0}

    def save():
        try:
            store.save_many(others, others)
            outcomes["saved"] += 1
        except RuntimeError as error:
            assert "this thread is in the middle of a save" in str(error)
            outcomes["refused"] += 1
        except sqlite3.OperationalError as error:
            assert "another thread has been saving" in str(error)
            outcomes["refused"] += 1

    with Steps(save):
        store.save_many(keys, keys)
    assert store.load_many(keys)[1].all()
    assert all(outcomes.values()), outcomes
    save()
    load()
    print("done")
"""

CLOSES = """
    # Closed in the middle of a call of the same thread, and by another one that gives up waiting for it.
    from slabcache.errors import ClosedError
    from slabcache.stores import sqlite_connections
    sqlite_connections._PATIENCE = 0.0
    for step in range(0, 20_000, 37 if how == "same thread" else 211):
        own = SQLiteStore(path + "2", table="t", key="u4", value="u4", busy_timeout=0)
        left = [step]

        def close(own=own, left=left):
            left[0] -= 1
            if left[0] == -1:
                own.close()

        with contextlib.suppress(ClosedError), Steps(close):
            own.load_many(keys)
            own.save_many(keys, keys)
        own.close()
        if left[0] >= 0:
            break
        files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        assert path + "2" not in files, (step, files)
    else:
        raise AssertionError("more steps than were tried")
    print("done")
"""

COLLECTOR = """
    # The real collector: it starts wherever there are allocations, and finds a finalizer each time.
    class Trap:
        def __init__(self):
            self.me = self

        def __del__(self):
            global finalized
            finalized += 1
            load() if how == "same thread" else pool.submit(load).result()

    finalized = 0
    for threshold in (1, 2, 3, 5, 7):
        gc.set_threshold(threshold)
        for _ in range(20):
            Trap()
            store.save_many(keys, keys)
            Trap()
            store.load_many(keys)
            Trap()
            store.delete_many(keys)
    gc.set_threshold(700)
    gc.collect()
    assert finalized >= 300, finalized
    print("done")
"""

RUN_ALL = """
    # One thread answers all requests, as that of the driver does.
    import queue
    from slabcache.stores.cassandra_session import SharedSession, run_all
    from slabcache.stores.timestamps import Timestamps

    inbox = queue.SimpleQueue()

    class Future:
        def add_callbacks(self, callback, errback):
            inbox.put(callback)

    class Session:
        is_shutdown = False

        def execute_async(self, statement, parameters, timeout):
            return Future()

    class Cluster:
        is_shutdown = False

        def connect(self):
            return Session()

        def shutdown(self):
            pass

    def answer():
        while True:
            inbox.get()([(1,)])

    threading.Thread(target=answer, daemon=True).start()
    session, stamps = Session(), Timestamps()

    def load():
        answers, errors = run_all(session, [("s", None)] * 3, concurrency=2, timeout=1.0)
        assert answers == [[(1,)]] * 3 and not errors

    with Steps(load):
        load()
    with Steps(stamps.next):
        for _ in range(10):
            stamps.next()

    def call(shared):
        with shared.call() as call:
            return shared.open(call)

    def call_or_refused(shared):
        if not shared.here()._turns and not shared.here().opened:
            return  # it would be the one that opens it
        try:
            call(shared)
        except (RuntimeError, TimeoutError) as error:
            assert "in the middle of connecting" in str(error) or "has been opening" in str(error)
            refused.append(error)

    refused = []
    shared = SharedSession(Cluster, lambda session: None, patience=0.0)
    with Steps(lambda: call_or_refused(shared)):
        assert call(shared) is call(shared)
    assert refused
    other = SharedSession(Cluster, lambda session: None, patience=0.0)
    call(other)
    with Steps(lambda: call_or_refused(other)):
        shared.close()
    print("done")
"""

SCRIPTS = {
    "loads": SQLITE + LOADS,
    "opening and closing": SQLITE + OPENING,
    "forking": SQLITE + FORKING,
    "saves": SQLITE + SAVES,
    "closes": SQLITE + CLOSES,
    "collector": SQLITE + COLLECTOR,
    "requests": RUN_ALL,
}


@pytest.mark.parametrize("how", ["same thread", "another thread"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_call_at_each_step_of_a_call(script: str, how: str) -> None:
    assert run(AT_EACH_STEP + script, how).endswith("done\n")
