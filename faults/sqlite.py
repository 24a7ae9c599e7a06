"""Faults of SQLite's file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from measuring.processes import isolated
from slabcache.stores import SQLiteStore
from slabcache.stores.sqlite_log import LOG_SIZE

from .load import (
    COLD,
    NO_FAULT,
    NOTHING_LOST,
    PREFIX,
    Load,
    contents,
    fill_cold,
    lasting,
    open_cache,
    open_store,
    say,
    states_file,
    under_load,
)
from .report import Line

__all__ = ["FAULTS"]

BUSY_TIMEOUT = 0.5  # seconds
CLONE_NEWNS = 0x20000  # of sched.h
DISK = 64 << 20  # bytes
LARGE_ROW = 4000  # bytes
ROOM = 128 << 10  # bytes that a file may still grow by when the disk is full

#: Another process: these statements, and then it waits in its transaction.
OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("there", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def other_process(path: Path, *statements: str) -> Iterator[None]:
    command = [sys.executable, "-c", OTHER, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield
        process.communicate("\n")


def open_patient_store(path: Path) -> SQLiteStore:
    return open_store(path, busy_timeout=BUSY_TIMEOUT)


def run(path: Path, fault: Callable[[Path, Load, float], None], seconds: float, name: str, done: str) -> Line:
    """Load, fault, recovery."""
    with under_load(open_patient_store(path)) as load:
        fault(path, load, seconds)
    broken = [] if load.flush_errors else [NO_FAULT]
    return load.line(f"SQLite: {name}", done, NOTHING_LOST, contents(path), broken=broken)


# ---- locked ----------------------------------------------------------------------------------------


def hold_lock(path: Path, load: Load, seconds: float) -> None:
    with other_process(path, "BEGIN EXCLUSIVE"):
        load.endure(seconds)


def locked(quick: bool) -> Line:
    seconds = lasting(quick)
    done = (
        f"another process holds `BEGIN EXCLUSIVE` for {seconds:g} s, with a busy timeout of {BUSY_TIMEOUT} s"
    )
    with states_file() as path:
        return run(path, hold_lock, seconds, "file locked", done)


# ---- no space ---------------------------------------------------------------------------------------
#
# In processes of their own, which alone have the limit or the disk.


def take_space(path: Path, load: Load, seconds: float) -> None:
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + ROOM, resource.RLIM_INFINITY))
    load.endure(seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def limited_here(seconds: float) -> Line:
    done = f"the system lets no file grow (`RLIMIT_FSIZE`) for {seconds:g} s"
    with states_file() as path:
        return run(path, take_space, seconds, "files cannot grow", done)


def limited(quick: bool) -> Line:
    return isolated(limited_here, lasting(quick))


def fill_disk(path: Path, load: Load, seconds: float) -> None:
    filler = path.with_name("filler")
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):  # there is no more
                while file.write(bytes(size)):
                    pass
    load.endure(seconds)
    filler.unlink()


def mount_small_disk(folder: Path) -> None:
    """For this process alone, so that nothing is left behind whatever happens."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)


def full_here(folder: Path, seconds: float) -> Line:
    mount_small_disk(folder)
    path = folder / "states.db"
    fill_cold(open_store(path))
    done = f"a file system of {DISK >> 20} MiB is filled to its last byte for {seconds:g} s"
    return run(path, fill_disk, seconds, "disk full", done)


def full(quick: bool) -> Line | None:
    if os.geteuid() != 0:
        say("a small file system can be mounted by root only: left out")
        return None
    try:
        with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
            return isolated(full_here, Path(folder), lasting(quick))
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"a small file system cannot be mounted here: left out ({error})")
        return None


# ---- removed ---------------------------------------------------------------------------------------


def removed(quick: bool) -> Line:
    """Nothing is evicted here, nor due before `flush()`: so it is known which rows are unsaved."""
    seconds = 0.5 if quick else 2.0
    with states_file() as path:
        cache = open_cache(open_patient_store(path), capacity=50_000, flush_interval=3600)
        with cache, Load(cache, keys=8_000, cold_may_be_gone=True) as load:
            time.sleep(0.5)
            load.rest()
            cache.flush()
            before = dict(load.truth)
            load.go_on()
            time.sleep(0.3)
            unsaved = cache.stats().dirty
            with load.faulty():
                path.unlink()
                load.endure(seconds)
        stored = contents(path)
    gone = {key for key, row in before.items() if load.truth[key] == row and key not in stored}
    load.truth = {key: row for key, row in load.truth.items() if key not in gone}
    return load.line(
        "SQLite: file removed while open",
        f"`unlink` with {unsaved:,} rows unsaved, then {seconds:g} s of writes",
        "what is unsaved then, and all later, is in a new file; rows saved before are gone with theirs",
        stored,
        lost_note=f"gone with the file, and not written since: {len(gone) + len(COLD):,}",
        broken=["the file was not removed"] if any(key in stored for key in COLD) else [],
    )


# ---- a reader that stays -----------------------------------------------------------------------------


def fill_log(path: Path) -> int:
    """Save large rows into a table of their own until the log is too large; its size then."""
    log = path.with_name(path.name + "-wal")
    store = SQLiteStore(path, table="large", key="u8", value=f"V{LARGE_ROW}", busy_timeout=60.0)
    with contextlib.closing(store):
        keys, values = np.arange(1000, dtype="u8"), np.zeros(1000, store.value_dtype)
        while log.stat().st_size < 2 * LOG_SIZE:
            store.save_many(keys, values)
            keys += np.uint64(1000)
    return log.stat().st_size


def reader_stays(quick: bool) -> Line:
    seconds = lasting(quick)
    with states_file() as path:
        with open_cache(open_patient_store(path)) as cache, Load(cache) as load:
            time.sleep(1.0)
            with load.faulty(), other_process(path, "BEGIN", "SELECT count(*) FROM states"):
                load.fault_begins()
                began = time.monotonic()
                grown = fill_log(path)
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))
                load.fault_ends()
            left = path.with_name(path.name + "-wal").stat().st_size
        stored = contents(path)
    return load.line(
        "SQLite: log with a reader that stays",
        f"another process reads in a transaction for {seconds:g} s or more, until the log has "
        f"{grown >> 20} MiB",
        "no acknowledged row is lost; the log is small again after the next batch",
        stored,
        lost_note=f"the log afterwards: {left >> 20} MiB",
        broken=[f"the log still has {left >> 20} MiB"] if left > LOG_SIZE else [],
    )


FAULTS = (locked, limited, full, removed, reader_stays)
