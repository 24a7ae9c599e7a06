"""Print the README's comparison as Markdown: ``python -m bench.compare [--entries N] [--repeats N]``.

Each cache is measured in processes of its own. The repeats go round robin over the caches, so that a slow
minute of the machine falls on all of them; the table holds medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import monotonic

from .measure import MEASURED_ROWS, Figures
from .peers import PEERS
from .workload import CHUNK_ROWS

ROOT = Path(__file__).parent.parent
NEEDED = {
    "slabcache": "slabcache",
    "numpy": "numpy",
    "cachetools": "cachetools",
    "lru": "lru-dict",
    "cachebox": "cachebox",
}
HEADER = (
    "",
    "hit, one field read, ns",
    "evicting write, ns",
    "batch get, ns a row",
    "bytes an entry",
    "full gc.collect(), ms",
    "longest stall, ms",
    "the better choice when",
)


def main() -> int:
    """Exit code: 0, or 2 when something is not installed."""
    options = _parse()
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"bench: not installed: {', '.join(missing)}; pip install '.[bench]'", file=sys.stderr)
        return 2
    runs = _run_all(options.entries, options.repeats)
    print(*_table(runs), "", *_notes(options.entries, options.repeats), sep="\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description="slabcache and other LRU caches."
    )
    parser.add_argument(
        "--entries", type=_positive, default=1_000_000, metavar="N", help="in each cache (1,000,000)"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=3, metavar="N", help="processes for each cache (3)"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _run_all(entries: int, repeats: int) -> dict[str, list[Figures]]:
    """Figures of each cache, one for each repeat."""
    runs: dict[str, list[Figures]] = {name: [] for name in PEERS}
    for repeat in range(repeats):
        for name, peer in PEERS.items():
            start = monotonic()
            runs[name].append(_run_one(name, entries, seed=repeat))
            print(f"round {repeat + 1}/{repeats}  {peer.label}: {monotonic() - start:.1f} s", file=sys.stderr)
    return runs


def _run_one(name: str, entries: int, seed: int) -> Figures:
    command = [sys.executable, "-m", "bench.measure", name, str(entries), str(seed)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return Figures(**json.loads(done.stdout))


def _table(runs: dict[str, list[Figures]]) -> list[str]:
    """The lines of the table."""
    lines = [_line(HEADER), _line([":---", *["---:"] * (len(HEADER) - 2), ":---"])]
    lines += [_line([peer.label, *_cells(runs[name]), peer.choose_when]) for name, peer in PEERS.items()]
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(runs: list[Figures]) -> list[str]:
    return [
        _cell([run.hit_ns for run in runs]),
        _cell([run.evicting_write_ns for run in runs]),
        _cell([run.batch_row_ns for run in runs]),
        _cell([run.entry_bytes for run in runs]),
        _cell([run.collect_s * 1e3 for run in runs], digits=2),
        _cell([run.stall_s * 1e3 for run in runs], digits=2),
    ]


def _cell(figures: Sequence[float | None], digits: int = 0) -> str:
    """The median, or a dash; `digits` after the point where it is small."""
    known = [figure for figure in figures if figure is not None]
    if not known:
        return "-"
    middle = median(known)
    return f"{middle:,.{digits if middle < 10 else 0}f}"


def _notes(entries: int, repeats: int) -> list[str]:
    """What the figures are and where they come from."""
    packages = dict.fromkeys(peer.package for peer in PEERS.values() if peer.package)
    return [
        f"{entries:,} entries of a 16-byte key and a 20-byte value, random order; medians of {repeats} "
        f"processes; CPU time over {min(MEASURED_ROWS, entries):,} rows, batches of {CHUNK_ROWS:,} rows. "
        f"{_machine()}. "
        f"{', '.join(f'{package} {version(package)}' for package in packages)}.",
    ]


def _machine() -> str:
    """Processor, system and interpreter in one line."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    system = f"{platform.system()} {platform.machine()}"
    return f"{model}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
