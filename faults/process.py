"""Faults of the process itself: it is killed in the middle, again and again.

The process that is killed, ``python -m faults.process PATH``, writes rows whose numbers rise, and tells each
step on its standard output. Write number n goes to row n * STEP % ROWS, so whoever knows how far it got knows
the truth.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from slabcache import WriteBehindCache

from .load import KEY, PREFIX, VALUE, contents, open_cache, open_store, states_file, under_load
from .report import Line

__all__ = ["FAULTS"]

ROWS, STEP = 20_000, 7_919
PAUSE_EVERY = 50  # writes


def row_of(number: int) -> int:
    return number * STEP % ROWS


def killed(quick: bool) -> Line:
    rounds = 3 if quick else 12
    choice = random.Random(5)
    missing = unflushed = flushed = 0
    recovered = []
    broken = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
            path = Path(name) / "states.db"
            written, promised = run_and_kill(path, choice.uniform(0.5, 1.5))
            began = time.monotonic()
            with closing(open_store(path)) as store:
                store.save_many(np.array([1 << 40], KEY), np.zeros(1, VALUE))
            recovered.append(time.monotonic() - began)
            stored = contents(path)
        if not promised:
            broken.append("it was killed before its first flush")
        latest = {row_of(number): number for number in range(1, promised + 1)}
        flushed += len(latest)
        missing += sum(stored.get(key, (0, 0))[0] < number for key, number in latest.items())
        latest = {row_of(number): number for number in range(promised + 1, written + 1)}
        unflushed += sum(stored.get(key, (0, 0))[0] < number for key, number in latest.items())
        if any(row_of(number) != key for key, (number, _) in stored.items() if key < ROWS):
            broken.append("a row has a value that was never written to it")
    return Line(
        "process killed",
        f"`SIGKILL` in the middle of flushes, {rounds} times",
        "no row is lost whose `flush()` has returned",
        f"{flushed:,} by then flushed",
        missing,
        "-",
        max(recovered),
        lost_note=f"acknowledged after the last `flush()` began, and lost: {unflushed:,}",
        broken=broken,
    )


def forked_in_c(quick: bool) -> Line:
    """As a master of uWSGI forks: no hook of Python's runs in the child."""
    rounds = 2 if quick else 10
    broken = []
    with states_file() as path:
        with under_load(open_store(path)) as load:
            load.fault_begins()
            for _ in range(rounds):
                time.sleep(0.2)
                load.rest()
                load.cache.flush()
                time.sleep(0.1)  # a thread that wants the GIL now could keep the child from it for ever
                load.cache[1 << 39] = load.truth[1 << 39] = load.writes, 0
                broken += wrong_in_child(load.cache)
                load.go_on()
            load.fault_ends()
        stored = contents(path)
    return load.line(
        "fork in C",
        f"`fork()` of the system, which runs no hook of Python's, {rounds} times; the child writes",
        "writes in the child raise, what is in memory can be read; no row of the parent's is lost",
        stored,
        broken=broken,
    )


def wrong_in_child(cache: WriteBehindCache) -> list[str]:
    """Fork, and what has gone wrong in the child."""
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        try:
            status = 1 if cache.peek(1 << 39) is None else 0
            for write in (lambda: cache.increment(1 << 39, "count"), lambda: cache.put_many([1], [(1, 1)])):
                try:
                    write()
                    status |= 2
                except RuntimeError as error:
                    status |= 0 if "forked" in str(error) else 4
            cache.flush(1.0)
            cache.close()
            os._exit(status)
        except BaseException:
            os._exit(8)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [f"the child ended with status {status}"] if status else []


def run_and_kill(path: Path, seconds: float) -> tuple[int, int]:
    """Numbers of the last write that was told to be acknowledged, and of the last one told to be flushed."""
    command = [sys.executable, "-m", "faults.process", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]  # it is at work
        killer = threading.Timer(seconds, os.kill, (child.pid, signal.SIGKILL))
        killer.start()
        lines += child.stdout
        killer.join()
    if child.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the process was to be killed, and has ended with {child.returncode}")
    last = {"written": 0, "flushed": 0}
    for line in lines:
        if line.endswith("\n"):
            word, number = line.split()
            last[word] = int(number)
    return last["written"], last["flushed"]


def work(path: Path) -> None:
    """Until killed."""
    cache = open_cache(open_store(path), backpressure_timeout=None)
    number = 0

    def flush() -> None:
        while True:
            reached = number
            cache.flush()
            tell("flushed", reached)
            time.sleep(0.02)

    threading.Thread(target=flush, daemon=True).start()
    while True:
        cache[row_of(number + 1)] = number + 1, 0
        number += 1
        tell("written", number)
        if number % PAUSE_EVERY == 0:
            time.sleep(0.004)


def tell(word: str, number: int) -> None:
    os.write(sys.stdout.fileno(), f"{word} {number}\n".encode())


FAULTS = (killed, forked_in_c)

if __name__ == "__main__":
    work(Path(sys.argv[1]))
