"""Faults of SQLite's file."""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from slabcache.stores import SQLiteStore

from .load import COLD, KEY, VALUE, Load, contents, fill_cold, open_cache
from .report import Line

__all__ = ["FAULTS"]

NOTHING_LOST = "no acknowledged row is lost"
BUSY_TIMEOUT = 0.5  # seconds
ROOM = 128 << 10  # bytes that a file may still grow by when the disk is full

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def open_store(path: Path) -> SQLiteStore:
    return SQLiteStore(path, table="states", key=KEY, value=VALUE, busy_timeout=BUSY_TIMEOUT)


def with_load(
    fault: Callable[[Path, Load, float], None], seconds: float, **options: Any
) -> tuple[Load, dict[int, tuple[int, int]], int]:
    """Load, fault, recovery; also how many attempts of the store failed."""
    with tempfile.TemporaryDirectory(prefix="slabcache-faults-") as name:
        path = Path(name) / "states.db"
        fill_cold(path)
        with open_cache(open_store(path), **options) as cache, Load(cache) as load:
            time.sleep(1.0)
            with load.faulty():
                fault(path, load, seconds)
            errors = cache.stats().flush_errors
        return load, contents(path), errors


def line_of(
    fault: str, done: str, found: tuple[Load, dict[int, tuple[int, int]], int], promised: str = NOTHING_LOST
) -> Line:
    load, stored, errors = found
    return Line(
        fault,
        done,
        promised,
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
        time.sleep(seconds)
        load.fault_ends()
        holder.communicate("\n")


def locked(quick: bool) -> Line:
    seconds = 2.0 if quick else 6.0
    done = (
        f"another process holds `BEGIN EXCLUSIVE` for {seconds:g} s, with a busy timeout of {BUSY_TIMEOUT} s"
    )
    return line_of("SQLite: file locked", done, with_load(hold_lock, seconds))


# ---- no space ---------------------------------------------------------------------------------------


def take_space(path: Path, load: Load, seconds: float) -> None:
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + ROOM, resource.RLIM_INFINITY))
    time.sleep(seconds)
    load.fault_ends()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def full_here(seconds: float) -> Line:
    done = f"the system lets no file grow (`RLIMIT_FSIZE`) for {seconds:g} s"
    return line_of("SQLite: disk full", done, with_load(take_space, seconds))


def full(quick: bool) -> Line:
    """In a process of its own, which alone has the limit."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(full_here, 2.0 if quick else 6.0).result()


# ---- removed ---------------------------------------------------------------------------------------


def removed(quick: bool) -> Line:
    """Nothing is evicted here, nor due before `flush()`: so it is known which rows are unsaved."""
    seconds = 0.5 if quick else 2.0
    with tempfile.TemporaryDirectory(prefix="slabcache-faults-") as name:
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


FAULTS = (locked, full, removed)
