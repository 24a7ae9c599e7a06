"""Lines of .pyx and .pxd files that ran: line_coverage.py BUILD_FOLDER --fail-under PERCENT

gcov counts the lines of the generated C. Cython says in comments which source line each stretch of it
comes from, and where the clean-up at the end of a function begins, which comes from none. Functions of
a .pxd file are compiled into each module that uses them: a line ran if it did in any.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NOT_SHIPPED = ("slabcache/_structures.pyx",)
ORIGIN = re.compile(r'^ */[*] "(slabcache/[^"]+)":(\d+)$')
CLEAN_UP = "/* function exit code */"

Line = tuple[str, int]  # source file and line number


def origins_of(generated: Path) -> dict[int, Line]:
    """The source line that each line of generated C comes from."""
    origins = {}
    origin = None
    for number, text in enumerate(generated.read_text().splitlines(), 1):
        if match := ORIGIN.match(text):
            origin = (match[1], int(match[2]))
        elif CLEAN_UP in text or text == "}":
            origin = None
        elif origin:
            origins[number] = origin
    return origins


def counts_in(folder: Path) -> dict[str, dict[int, int]]:
    """How often each source line ran, by file and line number."""
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for data in folder.rglob("*.gcda"):
        command = ["gcov", "--json-format", "--stdout", str(data)]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for source in report["files"]:
            if not source["file"].endswith(data.stem + ".c"):
                continue
            origins = origins_of(Path(source["file"]))
            for entry in source["lines"]:
                name, number = origins.get(entry["line_number"], ("", 0))
                if name and name not in NOT_SHIPPED:
                    counts[name][number] += entry["count"]
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fail-under", type=float, default=0.0)
    options = parser.parse_args()
    counts = counts_in(options.folder)
    ran = total = 0
    for name, lines in sorted(counts.items()):
        missing = sorted(number for number, count in lines.items() if count == 0)
        ran += len(lines) - len(missing)
        total += len(lines)
        share = 100 * (1 - len(missing) / len(lines))
        print(f"{name:24} {len(lines):5} lines {share:6.1f} %  not run: {missing or '-'}")
    share = 100 * ran / total if total else 0.0
    print(f"{'all':24} {total:5} lines {share:6.1f} %")
    return 0 if share >= options.fail_under else 1


sys.exit(main())
