"""Run the suites, print what is demanded and what holds: ``python -m bench``; ``--help`` names the options.

Suites with a bar run in several passes, each in fresh processes, one pass after another, so that neither a
slow minute of the machine nor the pages that a process happened to get decide a ratio. From the second pass
on peers that are in no bar are left out. All other suites run once. With --bars nothing runs that has none.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from . import bars, report
from .peers import INSTALLED, MISSING, PEERS
from .results import SUITES, Results, Run
from .sizes import LARGE

ROOT = Path(__file__).parent.parent
#: Suites that every pass repeats, and those of them for the fastest peers. All others belong to the first.
REPEATED, REPEATED_FOR_PEERS = (
    ("scalar", "eviction", "batch", "resize", "scaling", "behind", "sqlite"),
    ("eviction",),
)
#: Those that have a bar.
OF_BARS = sorted([*REPEATED, "memory", "tail"])
#: A test among them that has none, and takes long.
IN_NO_BAR = "bench/test_tail.py::test_latency"
PASSES, PASSES_OF_BARS = 4, 1
#: Peers outside of a bar are measured for tables and curves, for which fewer turns will do.
TURNS, TURNS_OF_OTHERS = 4, 2
#: Compared so closely that they share a process. A dict frees nothing that could be in the way.
TOGETHER = "dict", "slabcache"
#: Processor time does not see what else runs on the machine, and sees all threads that a cache may have.
TIMER = "time.process_time"


def main() -> int:
    """Exit code: 0 whatever the figures are, 2 for an unknown suite, that of pytest if a suite fails."""
    options = _parse()
    if unknown := set(options.suites) - set(SUITES):
        print(f"bench: no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    for name in MISSING:
        print(f"bench: {PEERS[name].label} is not installed and left out", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    for old in options.out.glob("*.json"):
        old.unlink()
    others = bars.FASTEST if options.bars else [name for name in INSTALLED if name not in TOGETHER]
    commands = []
    for number in range(1, options.passes + 1):
        for peers in [TOGETHER, *((name,) for name in others)]:
            repeated = REPEATED if peers == TOGETHER else REPEATED_FOR_PEERS
            all_of_them = number == 1 and (peers == TOGETHER or not options.bars)
            chosen = [suite for suite in options.suites if all_of_them or suite in repeated]
            if not chosen:
                continue
            command = _command(chosen, options, number, peers)
            commands.append(command)
            if code := _run(command, f"pass {number}, {', '.join(peers)}"):
                return code
        others = Results(options.out).fastest("evicting_write", LARGE, bars.FASTEST)[:2]
    Run(options.quick, options.passes, options.suites, commands).write(options.out)
    print(*report.whole(Results(options.out), options.quick, options.bars), sep="\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure slabcache and its peers.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="these alone: scalar, batch, ...")
    parser.add_argument("--quick", action="store_true", help="small caches, one pass: does it run?")
    parser.add_argument("--bars", action="store_true", help="what the bars are about, and their table")
    parser.add_argument("--passes", type=int, help=f"({PASSES}; with --bars {PASSES_OF_BARS})")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "bench", help="folder of the raw results"
    )
    options = parser.parse_args()
    options.suites = options.suites or (OF_BARS if options.bars else SUITES)
    options.passes = options.passes or (PASSES_OF_BARS if options.bars else PASSES)
    if options.quick:
        options.passes = 1
    options.out = options.out.resolve()
    return options


def _command(
    suites: list[str], options: argparse.Namespace, number: int, peers: tuple[str, ...]
) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", *(f"bench/test_{suite}.py" for suite in suites)),
        *("-q", "--confcutdir=bench", "--no-header", f"--seed={number}", f"--peers={','.join(peers)}"),
        f"--turns={TURNS if peers == TOGETHER or number > 1 else TURNS_OF_OTHERS}",
        *("--benchmark-disable-gc", "--benchmark-quiet", f"--benchmark-timer={TIMER}"),
        # A peer without a test in the chosen suites is no reason to stop.
        *("-W", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning"),
        f"--benchmark-json={options.out / f'pass-{number}-{peers[-1]}.json'}",
        *(["--quick"] if options.quick else []),
        *([f"--deselect={IN_NO_BAR}"] if options.bars else []),
    ]


def _run(command: list[str], what: str) -> int:
    """The exit code of pytest; to have found no test for a peer is no error."""
    started = monotonic()
    print(f"bench: {what}", file=sys.stderr, flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    print(f"bench: {what}: {monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code


if __name__ == "__main__":
    sys.exit(main())
