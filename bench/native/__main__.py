"""Build, measure and report: ``python -m bench.native [--sizes N ...] [--quick]``.

The repeats go round robin over sizes and subjects, each in a process of its own, so that a slow minute of
the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from time import monotonic

from bench.workload import CHUNK_ROWS
from measuring.machine import machine, with_version
from measuring.turns import in_turn

from .build import CARGO, GO, OUT, ROOT, build, versions
from .report import BATCH, LABELS, LRU, LRU_FX, MAP_LIST, QUICK_CACHE, SCALAR, Figures, Line, report

SIZES = [100_000, 1_000_000, 10_000_000]
ROWS, QUICK_ROWS = 1_000_000, 200_000  # behind each time
SLAB = [sys.executable, "-m", "bench.native.slab"]
PEERS = {GO: {MAP_LIST: "map-list"}, CARGO: {name: name for name in (LRU, LRU_FX, QUICK_CACHE)}}


def main() -> int:
    options = _parse()
    commands: dict[str, list[str]] = {BATCH: [*SLAB, "batch"], SCALAR: [*SLAB, "scalar"]}
    known = [with_version("numpy"), with_version("slabcache")]
    for toolchain, subjects in PEERS.items():
        if program := build(toolchain):
            commands |= {name: [str(program), subject] for name, subject in subjects.items()}
            known += versions(toolchain)
    lines = _measure_all(commands, options.sizes, options.rows, options.repeats)
    _check(lines)
    about = {"machine": machine(), "versions": known, "rows": options.rows, "repeats": options.repeats}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(about | {"lines": lines}, indent=1) + "\n")
    text = [
        *report(Figures(lines, options.rows)),
        "",
        _notes(options),
        f"{about['machine']}. {', '.join(known)}.",
    ]
    options.out.with_suffix(".md").write_text("\n".join(text) + "\n")
    print(*text, sep="\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.native", description="slabcache and native caches."
    )
    parser.add_argument("--sizes", type=_positive, nargs="+", metavar="N", help="entries (100k, 1M and 10M)")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="processes for each figure (3)")
    parser.add_argument("--quick", action="store_true", help="the smallest size once, to see that it runs")
    parser.add_argument("--out", type=Path, help="the raw results (build/native.json)")
    options = parser.parse_args()
    options.sizes = options.sizes or (SIZES[:1] if options.quick else SIZES)
    options.repeats = options.repeats or (1 if options.quick else 3)
    options.rows = QUICK_ROWS if options.quick else ROWS
    options.out = options.out or OUT.parent / ("native-quick.json" if options.quick else "native.json")
    return options


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _measure_all(commands: dict[str, list[str]], sizes: Sequence[int], rows: int, repeats: int) -> list[Line]:
    lines: list[Line] = []
    for repeat, (entries, name) in in_turn(list(product(sizes, commands)), repeats):
        start = monotonic()
        command = [*commands[name], str(entries), str(rows), str(repeat)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        lines += [{"subject": name, "repeat": repeat} | json.loads(line) for line in done.stdout.splitlines()]
        print(
            f"round {repeat + 1}/{repeats}  {entries:,} entries  {LABELS[name]}: {monotonic() - start:.1f} s",
            file=sys.stderr,
        )
    return lines


def _check(lines: Iterable[Line]) -> None:
    """Every LRU must have found every key, the same values in all of them, and kept the latest."""
    sums: dict[tuple[int, int], int] = {}
    for line in lines:
        if line["subject"] == QUICK_CACHE or line["operation"] not in ("hit", "write"):
            continue
        expected = line["rows"] if line["operation"] == "hit" else min(line["rows"], line["entries"])
        if line["found"] != expected:
            raise AssertionError(f"{expected - line['found']} of {expected} keys are not there: {line}")
        if line["operation"] == "hit":
            run = line["entries"], line["repeat"]
            if sums.setdefault(run, line["sum"]) != line["sum"]:
                raise AssertionError(f"read {line['sum']}, others {sums[run]}: {line}")


def _notes(options: argparse.Namespace) -> str:
    """What the figures are."""
    return (
        f"A 16-byte key and a 20-byte value, random order; medians of {options.repeats} processes; CPU time "
        f"of the one thread that uses the cache, over {options.rows:,} rows. Gaps, between groups of 16 "
        "writes, and collections are wall time. Batches: `get_many` and the sum of one field, `put_many`, "
        f"{CHUNK_ROWS:,} rows a call; scalar calls: `cache[a, b].mention_count`, `cache[a, b] = x, y, z`. "
        "Go's collector may use all cores. Both Rust crates hash with foldhash, where no other is named."
    )


if __name__ == "__main__":
    sys.exit(main())
