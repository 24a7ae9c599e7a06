"""Inject all faults: ``python -m faults``; ``--help`` names the options."""

from __future__ import annotations

import argparse
import sys
import time

from measuring.pages import fill

from . import cassandra, process, sqlite, stores
from .load import say
from .report import PAGE, Line, conditions, table

FAMILIES = {
    "sqlite": sqlite.FAULTS,
    "cassandra": cassandra.FAULTS,
    "stores": stores.FAULTS,
    "process": process.FAULTS,
}


def main() -> int:
    """Exit code: 0 when every promise held, otherwise 1."""
    parser = argparse.ArgumentParser(
        prog="python -m faults", description="What becomes of acknowledged writes when something breaks."
    )
    parser.add_argument("--quick", action="store_true", help="short faults; the page stays as it is")
    parser.add_argument("--only", choices=FAMILIES, help="one family; the page stays as it is")
    options = parser.parse_args()
    lines: list[Line] = []
    for family in [options.only] if options.only else FAMILIES:
        for fault in FAMILIES[family]:
            say(f"{family}: {fault.__name__}")
            began = time.monotonic()
            line = fault(options.quick)
            lines += [line] if line else []
            say(f"{family}: {fault.__name__}: {time.monotonic() - began:.1f} s")
    rows = table(lines)
    print("\n".join(rows))
    failures = [failure for line in lines for failure in line.failures()]
    for failure in failures:
        say(failure)
    if not (options.quick or options.only):
        PAGE.write_text(fill(PAGE.read_text(), {"faults": [*rows, "", conditions()]}))
        say(f"the table is in {PAGE.name}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
