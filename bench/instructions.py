"""Instructions that one call executes, counted by callgrind: `make bench-instructions`.

Times on a shared machine differ by tenths; the number of instructions is the same in every run, so it shows
whether a change made a hot path longer. Each figure is that of a loop over `CALLS` calls, less an empty loop,
divided by the number of calls, or of rows. `--json FILE` keeps the figures; `--against FILE` prints those of
another run beside them, and fails where a call has become longer.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measuring.read_states import KEY, VALUE
from measuring.stores import VoidStore

CALLS = 2000
ROWS = 1000  # of a batch
BATCHES = 5
KEYS = {"8": "u8", "16": KEY}
MARK = "_PyEval_SetSwitchInterval"  # a function of CPython's that nothing else calls here
TOLERANCE = 0.5  # instructions a call: where the loop and its objects lie makes that much


def empty(keys: Any) -> None:
    for _ in keys:
        pass


def hits(cache: Any, keys: Any) -> None:
    for key in keys:
        cache[key]


def writes(cache: Any, keys: Any) -> None:
    value = (1, 2, 3)
    for key in keys:
        cache[key] = value


def scalar_writes(cache: Any, keys: Any) -> None:
    for key in keys:
        cache[key] = 7


def increments(cache: Any, keys: Any) -> None:
    for key in keys:
        cache.increment(key, "mention_count")


def samples() -> list[tuple[str, int, Callable[[], None]]]:
    """What is counted, in order: a name, the calls or rows that it makes, and what makes them."""
    from slabcache import SlabCache, WriteBehindCache

    nothing = list(range(CALLS))
    found: list[tuple[str, int, Callable[[], None]]] = [("loop", CALLS, lambda: empty(nothing))]
    for size, spec in KEYS.items():
        dtype = np.dtype(spec)
        numbers = np.arange(4 * CALLS, dtype="u8")

        def rows_of(numbers: Any, dtype: Any = dtype) -> Any:
            return (
                numbers.copy() if dtype.names is None else np.stack([numbers, numbers], 1).view(dtype)[:, 0]
            )

        old, new = rows_of(numbers[:CALLS]), rows_of(numbers[CALLS:])
        old_keys = old.tolist()
        new_keys = iter([new[:CALLS].tolist(), new[CALLS : 2 * CALLS].tolist()])
        cache = SlabCache(CALLS, spec, VALUE)
        rows = old[:ROWS].copy()
        values = np.zeros(ROWS, cache.value_dtype)
        fresh = [new[at : at + ROWS].copy() for at in range(0, len(new), ROWS)]
        writes(cache, old_keys)
        scalars = SlabCache(CALLS, spec, "i8")
        scalar_writes(scalars, old_keys)
        behind = WriteBehindCache(CALLS, VoidStore(dtype, VALUE), flush_interval=1e6, default=(0, 0, 0))
        writes(behind, old_keys)

        def repeated(call: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
            return lambda: [call(*arguments) for _ in range(BATCHES)] and None

        def filled(batches: Any, cache: Any = cache, values: Any = values) -> Callable[[], None]:
            return lambda: [cache.put_many(rows, values) for rows in batches] and None

        batch = BATCHES * ROWS
        found += [
            (f"hit, {size}", CALLS, lambda c=cache, k=old_keys: hits(c, k)),
            (f"write, {size}", CALLS, lambda c=cache, k=old_keys: writes(c, k)),
            (f"evicting write, {size}", CALLS, lambda c=cache, k=new_keys: writes(c, next(k))),
            (f"(back again, {size})", CALLS, lambda c=cache, k=old_keys: writes(c, k)),
            (f"get_many, {size}", batch, repeated(cache.get_many, rows)),
            (f"put_many, {size}", batch, repeated(cache.put_many, rows, values)),
            (f"evicting put_many, {size}", len(fresh) * ROWS, filled(fresh)),
            (f"hit of a scalar, {size}", CALLS, lambda c=scalars, k=old_keys: hits(c, k)),
            (f"write of a scalar, {size}", CALLS, lambda c=scalars, k=old_keys: scalar_writes(c, k)),
            (f"write-behind hit, {size}", CALLS, lambda c=behind, k=old_keys: hits(c, k)),
            (f"write-behind write, {size}", CALLS, lambda c=behind, k=old_keys: writes(c, k)),
            (f"write-behind increment, {size}", CALLS, lambda c=behind, k=old_keys: increments(c, k)),
        ]
    return found


def child() -> None:
    """Run each sample between two calls of MARK, at which callgrind writes down what it has counted."""
    os.urandom = lambda size: bytes(range(size))  # the same hashes in each run
    found = samples()
    gc.collect()
    gc.disable()
    for _, _, run in found:
        run()  # what only the first time does
        sys.setswitchinterval(0.005)
        run()
        sys.setswitchinterval(0.005)
    print(json.dumps([(name, calls) for name, calls, _ in found]), flush=True)
    os._exit(0)


def count(python: str) -> dict[str, float]:
    """Instructions of a call, by the name of the sample."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}"]
        command += [f"--callgrind-out-file={folder}/out", python, "-m", "bench.instructions", "--child"]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        names = json.loads(done.stdout.splitlines()[-1])
        counts = []
        for at in range(len(names)):
            text = Path(folder, f"out.{2 * at + 2}").read_text()
            counts.append(int(re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)[1]))  # type: ignore[index]
    loop = counts[0] / CALLS
    return {
        name: total / calls - (loop if calls == CALLS else 0)
        for (name, calls), total in zip(names[1:], counts[1:], strict=True)
        if not name.startswith("(")
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    parser.add_argument("--against", type=Path, help="figures of another run")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
    if not shutil.which("valgrind"):
        print("valgrind is not installed: apt install valgrind", file=sys.stderr)
        return 1
    counts = count(sys.executable)
    before = json.loads(options.against.read_text()) if options.against else {}
    longer = False
    for name, instructions in counts.items():
        line = f"{name:32} {instructions:10.1f}"
        if name in before:
            difference = instructions - before[name]
            longer |= difference > TOLERANCE
            line += f" {before[name]:10.1f} {difference:+8.1f}"
        print(line)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(counts, indent=2) + "\n")
    return int(longer)


if __name__ == "__main__":
    sys.exit(main())
