"""Faults of SQLite's file."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from slabcache.stores import SQLiteStore
from slabcache.stores.sqlite_log import LOG_SIZE

from .load import COLD, KEY, VALUE, Load, contents, fill_cold, open_cache, say
from .report import Line

__all__ = ["FAULTS"]

NOTHING_LOST = "no acknowledged row is lost"
PREFIX = "slabcache-faults-"  # of temporary folders
BUSY_TIMEOUT = 0.5  # seconds
CLONE_NEWNS = 0x20000  # of sched.h
DISK = 64 << 20  # bytes
LARGE_ROW = 4000  # bytes
ROOM = 128 << 10  # bytes that a file may still grow by when the disk is full

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


READ = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM states").fetchone()
print("reading", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


def open_store(path: Path) -> SQLiteStore:
    return SQLiteStore(path, table="states", key=KEY, value=VALUE, busy_timeout=BUSY_TIMEOUT)


Found = tuple[Load, dict[int, tuple[int, int]], int]


def with_load(fault: Callable[[Path, Load, float], None], seconds: float, folder: Path) -> Found:
    """Load, fault, recovery: the load, what is stored then, and how many attempts of the store failed."""
    path = folder / "states.db"
    fill_cold(path)
    with open_cache(open_store(path)) as cache, Load(cache) as load:
        time.sleep(1.0)
        with load.faulty():
            fault(path, load, seconds)
        errors = cache.stats().flush_errors
    return load, contents(path), errors


def line_of(fault: str, done: str, found: Found) -> Line:
    load, stored, errors = found
    return Line(
        fault,
        done,
        NOTHING_LOST,
        load.acknowledged(),
        len(load.lost(stored)),
        load.reads_meanwhile(),
        load.recovered,
        broken=load.broken(stored) + ([] if errors else ["the store never failed: there was no fault"]),
    )


# ---- locked ----------------------------------------------------------------------------------------


def hold_lock(path: Path, load: Load, seconds: float) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        load.fault_begins()
        time.sleep(seconds)
        load.fault_ends()
        holder.communicate("\n")


def locked(quick: bool) -> Line:
    seconds = 2.0 if quick else 6.0
    done = (
        f"another process holds `BEGIN EXCLUSIVE` for {seconds:g} s, with a busy timeout of {BUSY_TIMEOUT} s"
    )
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        return line_of("SQLite: file locked", done, with_load(hold_lock, seconds, Path(name)))


# ---- no space ---------------------------------------------------------------------------------------


def take_space(path: Path, load: Load, seconds: float) -> None:
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + ROOM, resource.RLIM_INFINITY))
    load.fault_begins()
    time.sleep(seconds)
    load.fault_ends()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def limited_here(folder: Path, seconds: float) -> Line:
    done = f"the system lets no file grow (`RLIMIT_FSIZE`) for {seconds:g} s"
    return line_of("SQLite: files cannot grow", done, with_load(take_space, seconds, folder))


def limited(quick: bool) -> Line:
    return alone(limited_here, quick)


def fill_disk(path: Path, load: Load, seconds: float) -> None:
    filler = path.with_name("filler")
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):  # there is no more
                while file.write(bytes(size)):
                    pass
    load.fault_begins()
    time.sleep(seconds)
    load.fault_ends()
    filler.unlink()


def mount_small_disk(folder: Path) -> None:
    """For this process alone, so that nothing is left behind whatever happens."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)


def full_here(folder: Path, seconds: float) -> Line:
    mount_small_disk(folder)
    done = f"a file system of {DISK >> 20} MiB is filled to its last byte for {seconds:g} s"
    return line_of("SQLite: disk full", done, with_load(fill_disk, seconds, folder))


def full(quick: bool) -> Line | None:
    if os.geteuid() != 0:
        say("a small file system can be mounted by root only: left out")
        return None
    try:
        return alone(full_here, quick)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"a small file system cannot be mounted here: left out ({error})")
        return None


def alone(fault: Callable[[Path, float], Line], quick: bool) -> Line:
    """In a process of its own, which alone has the limit or the disk."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, ProcessPoolExecutor(1, context) as pool:
        return pool.submit(fault, Path(name), 2.0 if quick else 6.0).result()


# ---- removed ---------------------------------------------------------------------------------------


def removed(quick: bool) -> Line:
    """Nothing is evicted here, nor due before `flush()`: so it is known which rows are unsaved."""
    seconds = 0.5 if quick else 2.0
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        path = Path(name) / "states.db"
        fill_cold(path)
        cache = open_cache(open_store(path), capacity=50_000, flush_interval=3600)
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
                load.fault_begins()
                time.sleep(seconds)
                load.fault_ends()
        stored = contents(path)
    gone = {key for key, row in before.items() if load.truth[key] == row and key not in stored}
    load.truth = {key: row for key, row in load.truth.items() if key not in gone}
    broken = load.broken(stored)
    if any(key in stored for key in COLD):
        broken.append("the file was not removed")
    return Line(
        "SQLite: file removed while open",
        f"`unlink` with {unsaved:,} rows unsaved, then {seconds:g} s of writes",
        "what is unsaved then, and all later, is in a new file; rows saved before are gone with theirs",
        load.acknowledged(),
        len(load.lost(stored)),
        load.reads_meanwhile(),
        load.recovered,
        lost_note=f"gone with the file, and not written since: {len(gone) + len(COLD):,}",
        broken=broken,
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
    seconds = 2.0 if quick else 6.0
    command = [sys.executable, "-c", READ]
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        path = Path(name) / "states.db"
        fill_cold(path)
        with open_cache(open_store(path)) as cache, Load(cache) as load:
            time.sleep(1.0)
            with (
                load.faulty(),
                subprocess.Popen(
                    [*command, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                ) as reader,
            ):
                assert reader.stdout is not None
                assert reader.stdout.readline() == "reading\n"
                load.fault_begins()
                began = time.monotonic()
                grown = fill_log(path)
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))
                load.fault_ends()
                reader.communicate("\n")
            left = path.with_name(path.name + "-wal").stat().st_size
        stored = contents(path)
    broken = load.broken(stored)
    if left > LOG_SIZE:
        broken.append(f"the log still has {left >> 20} MiB")
    return Line(
        "SQLite: log with a reader that stays",
        f"another process reads in a transaction for {seconds:g} s or more, until the log has "
        f"{grown >> 20} MiB",
        "no acknowledged row is lost; the log is small again after the next batch",
        load.acknowledged(),
        len(load.lost(stored)),
        load.reads_meanwhile(),
        load.recovered,
        lost_note=f"the log afterwards: {left >> 20} MiB",
        broken=broken,
    )


FAULTS = (locked, limited, full, removed, reader_stays)
