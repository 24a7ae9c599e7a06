"""Run the suites, print what is demanded and what holds: ``python -m bench``; ``--help`` names the options.

Suites with a bar run in several passes, each in a process of its own, one pass after another, so that neither
a slow minute of the machine nor the pages that a process happened to get decide a ratio. From the second pass
on the peers that are in no bar are left out. Everything else runs once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from time import monotonic

from . import bars, report
from .peers import MISSING, PEERS
from .results import Results
from .sizes import LARGE

ROOT = Path(__file__).parent.parent
#: Suites that every pass repeats. What else there is named test_*.py belongs to the first.
REPEATED = "scalar", "eviction", "batch", "resize", "scaling"
PASSES, QUICK_PASSES = 4, 1
#: Processor time does not see what else runs on the machine, and sees all threads that a cache may have.
TIMER = "time.process_time"


def main() -> int:
    """Exit code: 0 whatever the figures are; that of pytest when a suite fails."""
    options = _parse()
    for name in MISSING:
        print(f"bench: {PEERS[name].label} is not installed and left out", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    for old in options.out.glob("*.json"):
        old.unlink()
    suites = {path.stem.removeprefix("test_"): path for path in sorted(ROOT.glob("bench/test_*.py"))}
    chosen = options.suites or list(suites)
    if unknown := [suite for suite in chosen if suite not in suites]:
        print(f"bench: no such suite: {', '.join(unknown)}; there are {', '.join(suites)}", file=sys.stderr)
        return 2
    peers = list(PEERS)
    commands = []
    passes = QUICK_PASSES if options.quick else options.passes
    for number in range(1, passes + 1):
        files = [suites[suite] for suite in chosen if number == 1 or suite in REPEATED]
        if not files:
            continue
        command = _command(files, options, number, peers)
        commands.append(command)
        started = monotonic()
        print(
            f"bench: pass {number}/{passes}, seed {number}, {', '.join(peers)}", file=sys.stderr, flush=True
        )
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode:
            return done.returncode
        print(f"bench: pass {number}/{passes}: {monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        peers = _in_a_bar(Results(options.out))
    (options.out / "commands.json").write_text(json.dumps(commands, indent=1))
    print(*report.whole(Results(options.out), quick=options.quick), sep="\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure slabcache and its peers.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="these alone: scalar, batch, ...")
    parser.add_argument("--quick", action="store_true", help="small caches, one pass: does it run?")
    parser.add_argument("--passes", type=int, default=PASSES, help=f"({PASSES})")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "bench", help="folder of the raw results"
    )
    options = parser.parse_args()
    options.out = options.out.resolve()
    return options


def _command(files: list[Path], options: argparse.Namespace, number: int, peers: list[str]) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", *(str(file.relative_to(ROOT)) for file in files)),
        *("-q", "--confcutdir=bench", "--no-header", f"--seed={number}", f"--peers={','.join(peers)}"),
        *("--benchmark-disable-gc", "--benchmark-quiet", f"--benchmark-timer={TIMER}"),
        f"--benchmark-json={options.out / f'pass-{number}.json'}",
        *(["--quick"] if options.quick else []),
    ]


def _in_a_bar(results: Results) -> list[str]:
    """Peers that the next pass has to measure again."""
    fastest = results.fastest("evicting_write", LARGE, bars.RIVALS)
    return ["dict", *fastest[:2], "slabcache"]


if __name__ == "__main__":
    sys.exit(main())
