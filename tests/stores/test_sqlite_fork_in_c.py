"""SQLiteStore in the child of a fork that C code makes, as uWSGI does: no hook of Python's runs before it,
and one in the child only if it is asked for.

Connections of the parent must be neither used nor closed there, and their files not opened again: SQLite
would believe in locks that the kernel has not given to the child.
"""

from __future__ import annotations

import sys

import pytest

from support.scripts import run

FORK = """
    import contextlib, ctypes, faulthandler, gc, os, signal, sqlite3, sys, tempfile, threading, warnings
    import numpy as np
    from slabcache.stores import SQLiteStore
    from support import forks
    from support.sqlite_file import execute
    from support.threads import beside

    faulthandler.register(signal.SIGALRM, chain=True)  # what hangs says where
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    AFTER = "hook in the child" in sys.argv[1]
    folder = tempfile.mkdtemp()
    path, elsewhere = os.path.join(folder, "x.db"), os.path.join(folder, "y.db")

    def open_files(path=path):
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return [target for target in map(os.path.realpath, links) if target.startswith(path)]

    def child(work, leave=os._exit):
        def first():
            if AFTER:
                ctypes.pythonapi.PyOS_AfterFork_Child()
            work()

        forks.wait(forks.child(first, ctypes.PyDLL(None).fork, leave))

    def new(path=path):
        return SQLiteStore(path, table="t", key="u4", value="u8", busy_timeout=5)

    def refused(call):
        try:
            call()
        except sqlite3.ProgrammingError as error:
            assert "this process was forked" in str(error) and "Make the store after the fork" in str(error)
        else:
            raise AssertionError("it has used a connection of the parent's, or its file")

    def use(store):
        store.save_many(keys[:10], np.full(10, 7, "u8"))
        assert (store.load_many(keys[:10])[0] == 7).all()
        store.delete_many(keys[:10])

    @contextlib.contextmanager
    def amid_a_call():
        # of another thread, which rests meanwhile
        inside, leave_it = threading.Event(), threading.Event()

        def hold():
            with store._connections.reading():
                inside.set()
                leave_it.wait()

        with beside(hold):
            inside.wait()
            yield
            leave_it.set()

    keys = np.arange(1000, dtype="u4")
    store = new()
    store.save_many(keys, keys.astype("u8"))
    store.load_many(keys)
"""

INHERITED = """
    def work():
        held = open_files()
        for _ in range(2):
            refused(lambda: store.load_many(keys))
            refused(lambda: store.save_many(keys, keys.astype("u8")))
            refused(lambda: store.delete_many(keys))
        refused(new)  # as bad: what SQLite notes is of the file, whoever has opened it
        other = new(elsewhere)
        use(other)
        other.close()
        child(lambda: refused(lambda: store.load_many(keys)))
        assert open_files() == held

    def forget():
        global store
        work()
        held = open_files()
        del store
        gc.collect()
        assert open_files() == held, "SQLite has closed the parent's connections"

    def close():
        held = open_files()
        store.close()
        assert open_files() == held

    for job in (work, forget, close, lambda: None):
        for leave in (os._exit, sys.exit):
            child(job, leave)
            assert os.path.getsize(path + "-wal"), "a child has closed the file, and removed the log"
            store.save_many(keys, keys.astype("u8"))
            assert (store.load_many(keys)[0] == keys).all()
    store.close()
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    assert execute(path, "SELECT count(*) FROM t") == [(1000,)]
    print("done")
"""

NOTHING_OPEN = """
    # As when the parent has not used it since it forked in Python's way, or has closed what it had open.
    another = new(elsewhere)
    another.close()
    store._connections.before_fork()

    def work():
        use(store)
        fresh = new(elsewhere)
        use(fresh)
        fresh.close()
        store.close()

    for leave in (os._exit, sys.exit):
        child(work, leave)
    use(store)
    store.close()
    print("done")
"""

IN_THE_MIDDLE = """
    # What SQLite has locked by then stays locked in the child.
    with amid_a_call():
        child(lambda: (refused(lambda: store.load_many(keys)), refused(lambda: new(elsewhere))))
    use(store)
    store.close()
    print("done")
"""

GIVEN_UP = """
    # A fork of Python's does not wait for ever for a call of another thread, which may be waiting for it.
    store._connections._patience = 0.0
    with amid_a_call():
        forks.wait(forks.child(lambda: refused(lambda: store.load_many(keys))))
    use(store)
    store.close()
    print("done")
"""

IN_ONES_OWN_CALL = """
    # A finalizer that forks in the middle of a call, in Python's way this time: the child stops there.
    me = os.getpid()

    def fork():
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0

    try:
        with store._connections.writing() as opened:
            opened.connection.execute("BEGIN IMMEDIATE")
            fork()
            opened.connection.execute("DELETE FROM t WHERE key = 1")
            opened.connection.execute("COMMIT")
        assert os.getpid() == me
    except sqlite3.ProgrammingError as error:
        assert os.getpid() != me and "this process was forked" in str(error)
        refused(lambda: store.load_many(keys))
        os._exit(0)
    assert store.load_many(keys)[1].sum() == 999
    store.close()
    print("done")
"""

REMOVED = """
    # While the log of a file that is gone is removed, the folder is locked. A child that has inherited the
    # lock must not keep it for as long as it lives.
    import fcntl
    from pathlib import Path

    reading, writing = os.pipe()
    unlink, children = Path.unlink, []

    def fork_and_unlink(file):
        if file.name.endswith("-wal") and not children:
            pid = ctypes.PyDLL(None).fork()
            if not pid:
                os.close(writing)
                os.read(reading, 1)  # until the parent says so, or ends
                os._exit(0)
            children.append(pid)
        unlink(file)

    Path.unlink = fork_and_unlink
    os.unlink(path)
    use(store)
    assert children
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(writing, b"x")
    assert os.waitpid(children[0], 0)[1] == 0
    store.close()
    print("done")
"""

SCRIPTS = {
    "inherited": INHERITED,
    "nothing open": NOTHING_OPEN,
    "in the middle": IN_THE_MIDDLE,
    "given up": GIVEN_UP,
    "in one's own call": IN_ONES_OWN_CALL,
    "log removed": REMOVED,
}


# Since Python 3.13 the hook in the child ends the process, unless the one before the fork has run.
HOOKS = ["no hook", "hook in the child"] if sys.version_info < (3, 13) else ["no hook"]


@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_fork_made_in_c(script: str, hooks: str) -> None:
    assert run(FORK + script, hooks) == "done\n"
