"""SQLiteStore in trouble: each error is raised as it is, and the next call works again, on the file that is
there."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from slabcache.stores import SQLiteStore
from support.scripts import command, run
from support.sqlite_file import execute


def open_store(path: Path, busy_timeout: float = 0.05) -> SQLiteStore:
    return SQLiteStore(path, table="states", key="u4", value="u4", busy_timeout=busy_timeout)


def numbers(*items: int) -> np.ndarray:
    return np.array(items, "u4")


def contents(path: Path) -> dict[int, int]:
    """What is in the file that is there, for somebody who opens it now."""
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    return dict(execute(path, "SELECT key, value FROM states"))


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(open_store(path)) as store:
        store.save_many(numbers(1), numbers(10))
        store.load_many(numbers(1))
        yield store


# ---- locks -------------------------------------------------------------------------------------------

HOLD = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE states SET value = 99")
    print("held", flush=True)
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    holder = subprocess.Popen(command(HOLD, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.communicate("\n")
    assert holder.returncode == 0


def test_a_lock_held_for_too_long(store: SQLiteStore, path: Path) -> None:
    with held_by_another_process(path):
        for work in (
            lambda: store.save_many(numbers(1, 2), numbers(11, 12)),
            lambda: store.delete_many(numbers(1)),
        ):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                work()
        # Readers wait for nobody, and see what was saved.
        assert store.load_many(numbers(1, 2))[0].tolist() == [10, 0]
        with closing(open_store(path)) as another:
            assert another.load_many(numbers(1, 2))[0].tolist() == [10, 0]
    store.save_many(numbers(1, 2), numbers(11, 12))
    assert contents(path) == {1: 11, 2: 12}


def test_a_lock_held_for_less(path: Path) -> None:
    with closing(open_store(path, busy_timeout=600)) as store:
        script = """
            import sqlite3, sys, time
            connection = sqlite3.connect(sys.argv[1], isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            print("held", flush=True)
            time.sleep(0.3)
            connection.execute("COMMIT")
            connection.close()
        """
        with subprocess.Popen(command(script, path), stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            store.save_many(numbers(1), numbers(11))
        assert holder.returncode == 0
    assert contents(path) == {1: 11}


def test_a_lock_that_sqlite_does_not_wait_for(path: Path) -> None:
    """As when two processes create the file: seldom, so the answers of SQLite are played here."""

    class Connection:
        def __init__(self, locked: int) -> None:
            self.locked = locked

        def execute(self, statement: str) -> Connection:
            self.locked -= 1
            if self.locked >= 0:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return self

        def fetchone(self) -> tuple[str]:
            return ("wal",)

    with closing(open_store(path, busy_timeout=600)) as store:
        store._keep_log(Connection(3))
    with closing(open_store(path, busy_timeout=0)) as store:
        store._keep_log(Connection(0))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            store._keep_log(Connection(1))


# ---- a disk that is full or broken ---------------------------------------------------------------------


def test_a_full_disk(store: SQLiteStore, path: Path) -> None:
    with store._connections.writing() as opened:
        (pages,) = opened.connection.execute("PRAGMA page_count").fetchone()
        opened.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = np.arange(5000, dtype="u4")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.save_many(many, many)
    assert contents(path) == {1: 10}
    store.save_many(many, many)  # on a connection of its own, which has no such limit
    assert contents(path) == {at: at for at in range(5000)}


def test_writing_fails() -> None:
    """The system refuses to make files larger: for SQLite an I/O error, or a full disk."""
    script = """
        import resource, sqlite3, sys, tempfile, os
        import numpy as np
        from slabcache.stores import SQLiteStore
        from support.sqlite_file import execute

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "x.db")
            store = SQLiteStore(path, table="t", key="u4", value="V200")
            few, many = np.arange(100, dtype="u4"), np.arange(20_000, dtype="u4")
            store.save_many(few, np.zeros(100, "V200"))
            for size in (40_000, 100_000, 400_000):
                limit(size)
                for _ in range(3):
                    try:
                        store.save_many(many, np.zeros(20_000, "V200"))
                    except sqlite3.OperationalError as error:
                        print(str(error))
                limit(resource.RLIM_INFINITY)
                assert store.load_many(many)[1].sum() == 100
                store.save_many(few, np.zeros(100, "V200"))
            store.save_many(many, np.zeros(20_000, "V200"))
            assert store.load_many(many)[1].all()
            store.close()
            assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    """
    lines = run(script).splitlines()
    assert len(lines) == 9
    assert set(lines) <= {"disk I/O error", "database or disk is full"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, sqlite3.OperationalError])
def test_an_error_in_the_middle_leaves_nothing(store: SQLiteStore, path: Path, error: type) -> None:
    class FailsAtTheEnd:
        """A row of the batch that cannot be read."""

        def __iter__(self) -> Iterator[tuple[int, int]]:
            yield 1, 77
            yield 2, 77
            raise error

    ((_, upsert),) = store._table.upserts(1, 2)
    with pytest.raises(error):
        store._write(lambda connection: connection.executemany(upsert, FailsAtTheEnd()))
    assert contents(path) == {1: 10}
    store.save_many(numbers(2), numbers(20))
    assert contents(path) == {1: 10, 2: 20}


def test_a_table_that_is_dropped(store: SQLiteStore, path: Path) -> None:
    execute(path, "DROP TABLE states")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.save_many(numbers(1), numbers(11))
    store.save_many(numbers(1), numbers(11))
    assert contents(path) == {1: 11}
    assert store.load_many(numbers(1))[0].tolist() == [11]


def test_a_table_that_becomes_another_does_not_blame_the_rows(store: SQLiteStore, path: Path) -> None:
    """A `ValueError` would mean that these rows can never be stored, and they would be given up."""
    execute(path, "ALTER TABLE states RENAME COLUMN value TO worth")
    for _ in range(3):
        with pytest.raises(sqlite3.Error) as caught:
            store.save_many(numbers(1), numbers(11))
        assert not isinstance(caught.value, sqlite3.IntegrityError | ValueError)
    assert "column 'worth' is not in the dtypes" in str(caught.value)
    with pytest.raises(sqlite3.Error):
        store.load_many(numbers(1))  # never the name of the column as text
    execute(path, "ALTER TABLE states RENAME COLUMN worth TO value")
    store.save_many(numbers(1), numbers(11))
    assert contents(path) == {1: 11}


# ---- the file is removed or replaced -------------------------------------------------------------------

Way = Callable[[Path], None]


def remove(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    """By a database that has a row of its own."""
    other = path.with_name("other.db")
    with closing(open_store(other)) as store:
        store.save_many(numbers(5), numbers(50))
    other.replace(path)


def replace_by_an_empty_file(path: Path) -> None:
    other = path.with_name("empty.db")
    other.touch()
    other.replace(path)


def replace_the_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("aside"))
    path.parent.mkdir()


@pytest.fixture(
    params=[remove, remove_all, move_away, replace, replace_by_an_empty_file, replace_the_directory]
)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest.fixture
def there(way: Way) -> dict[int, int]:
    """What is in the file after that."""
    return {5: 50} if way is replace else {}


@pytest.mark.parametrize("first", ["save", "load", "delete"])
def test_between_calls(
    path: Path, way: Way, there: dict[int, int], first: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_store(path)) as store:
        for round_ in (1, 2):
            store.save_many(numbers(1, 2), numbers(10, 20))
            store.load_many(numbers(1))
            way(path)
            if first == "load":
                assert store.load_many(numbers(1, 5))[0].tolist() == [0, there.get(5, 0)]
            elif first == "delete":
                store.delete_many(numbers(2))
            store.save_many(numbers(3), numbers(30))
            assert store.load_many(numbers(1, 3, 5))[0].tolist() == [0, 30, there.get(5, 0)]
            assert contents(path) == {3: 30} | there
            assert [record.levelno for record in caplog.records] == [logging.WARNING] * round_
            shutil.rmtree(path.parent.with_name("aside"), ignore_errors=True)
    assert contents(path) == {3: 30} | there
    assert "was removed or replaced while it was open" in caplog.text


@pytest.mark.parametrize("moment", ["BEGIN IMMEDIATE", "INSERT", "COMMIT"])
def test_in_the_middle_of_a_save(path: Path, way: Way, there: dict[int, int], moment: str) -> None:
    with closing(open_store(path)) as store:
        store.save_many(numbers(1, 2), numbers(10, 20))
        store.load_many(numbers(1))
        done = []

        def strike(statement: str) -> None:
            if statement.startswith(moment) and not done:
                done.append(statement)
                way(path)

        with store._connections.writing() as opened:
            opened.connection.set_trace_callback(strike)
        store.save_many(numbers(3), numbers(30))
        assert done
        assert contents(path) == {3: 30} | there
        assert store.load_many(numbers(1, 3, 5))[0].tolist() == [0, 30, there.get(5, 0)]


@pytest.mark.parametrize("moment", ["connected", "configured"])
def test_while_it_is_opened(
    path: Path, way: Way, there: dict[int, int], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(path).close()
    struck: list[str] = []

    def strike(now: str) -> None:
        if now == moment and not struck:
            struck.append(now)
            if way is remove_all:
                for end in ("-wal", "-shm"):  # before there is a log there is none to remove
                    path.with_name(path.name + end).touch()
            way(path)

    connect, configure = sqlite3.connect, SQLiteStore._configure

    def connecting(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        strike("connected")
        return connection

    def configured(store: SQLiteStore, connection: sqlite3.Connection, is_writer: bool) -> None:
        configure(store, connection, is_writer)
        strike("configured")

    with monkeypatch.context() as patches:
        patches.setattr(sqlite3, "connect", connecting)
        patches.setattr(SQLiteStore, "_configure", configured)
        store = open_store(path)
    with closing(store):
        assert struck
        store.save_many(numbers(3), numbers(30))
        assert contents(path) == {3: 30} | there


def test_a_file_that_is_moved_takes_its_rows_along(store: SQLiteStore, path: Path) -> None:
    move_away(path)
    store.save_many(numbers(3), numbers(30))
    assert contents(path.with_name("moved.db")) == {1: 10}


def test_a_log_that_is_removed(store: SQLiteStore, path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()
    store.save_many(numbers(3), numbers(30))
    shutil.copytree(path.parent, path.parent / "copy")  # what a power loss would leave
    assert contents(path.parent / "copy" / path.name) == {1: 10, 3: 30}
    assert store.load_many(numbers(1, 3))[0].tolist() == [10, 30]


def test_a_log_that_is_removed_and_nothing_is_saved_after(store: SQLiteStore, path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()
    assert store.load_many(numbers(1))[0].tolist() == [10]
    shutil.copytree(path.parent, path.parent / "copy")
    assert contents(path.parent / "copy" / path.name) == {1: 10}


def test_a_file_that_becomes_another_table(
    store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = path.with_name("other.db")
    execute(other, "CREATE TABLE states (a)")
    other.replace(path)
    with pytest.raises(sqlite3.ProgrammingError, match="column 'key' is missing"):
        store.save_many(numbers(3), numbers(30))
    with pytest.raises(sqlite3.ProgrammingError, match="column 'key' is missing"):
        store.load_many(numbers(3))
    path.unlink()
    store.save_many(numbers(3), numbers(30))
    assert contents(path) == {3: 30}


def test_a_file_that_is_removed_again_and_again(store: SQLiteStore, path: Path) -> None:
    stop: list[bool] = []
    removed = []

    def strike(statement: str) -> None:
        if statement == "COMMIT":
            removed.append(statement)
            path.unlink()

    configure = store._connections._configure

    def configured(connection: sqlite3.Connection, is_writer: bool) -> None:
        configure(connection, is_writer)
        if is_writer and not stop:
            connection.set_trace_callback(strike)

    store._connections._configure = configured
    path.unlink()
    with pytest.raises(sqlite3.OperationalError, match="again and again"):
        store.save_many(numbers(3), numbers(30))
    assert len(removed) > 1
    stop.append(True)
    store.save_many(numbers(3), numbers(30))
    assert contents(path) == {3: 30}


def test_the_log_of_a_file_that_is_gone_is_removed_while_its_folder_is_locked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a step of this thread, say, that a finalizer has interrupted: it is not waited for without end."""
    monkeypatch.setattr("slabcache.stores.sqlite_opened._FOLDER_PATIENCE", 0.05)
    store = SQLiteStore(path, table="t", key="u4", value="u4")
    keys = np.arange(10, dtype="u4")
    store.save_many(keys, keys)
    log = path.with_name(path.name + "-wal")
    before = log.stat().st_ino
    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with contextlib.suppress(sqlite3.OperationalError):
            store.load_many(keys)
        assert not log.exists() or log.stat().st_ino != before
    finally:
        os.close(folder)
        store.close()
