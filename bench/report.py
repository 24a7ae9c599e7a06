"""The results on pages: ``python -m bench.report`` fills in the README and docs/benchmarks.md, and draws.

A page has places for tables, ``<!-- bench: NAME begin -->`` to ``<!-- bench: NAME end -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring.pages import fill, table

from . import bars
from .peers import EVICTING, INSTALLED, PEERS
from .results import SUITES, Figure, Results, Subject
from .sizes import LARGE, SIZES, SMALL

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
NATIVE = ROOT / "build" / "native.md"  # what `make bench-native` found
PICTURES = ROOT / "docs" / "images"
#: With fewer there is no range of their medians.
FEWEST_PASSES = 2
#: Suites that must all have run for the places about them to be filled.
BEHIND = {"behind", "sqlite"}
PLAIN = set(SUITES) - BEHIND
#: A figure this close to another one is as good as equal.
EQUAL = 1.05
OPERATIONS = {
    "hit": "hit",
    "hit_by_same_objects": "hit by the dict's own key objects",
    "hit_of_u8_key": "hit of a `u8` key",
    "read": "hit and one field read",
    "update": "write to an entry that is there",
    "evicting_write": "evicting write",
}


def whole(results: Results, quick: bool, bars_alone: bool) -> list[str]:
    """All that a run prints."""
    head = ["Caches cut to a small size: these figures mean nothing.", ""] if quick else []
    demands = [*head, *bars.table(results), "", *bars.table(results, bars.BARS_BEHIND)]
    if bars_alone:
        return demands
    return [
        *demands,
        "",
        *comparison(results),
        "",
        *losses(results),
        "",
        *behind(results),
        "",
        *conditions(results),
    ]


def blocks(results: Results) -> dict[str, list[str]]:
    """What goes to the places of the pages, by name."""
    return {
        "bars": bars.table(results),
        "comparison": comparison(results),
        "hits": by_size(results, "hit", INSTALLED),
        "evictions": by_size(results, "evicting_write", EVICTING),
        "batches": batches(results),
        "read-through": read_through(results),
        "losses": losses(results),
        "conditions": conditions(results),
    }


def behind_blocks(results: Results) -> dict[str, list[str]]:
    """Those about the cache in front of a store."""
    return {
        "behind-bars": bars.table(results, bars.BARS_BEHIND),
        "behind": behind(results),
        "behind-conditions": conditions(results),
    }


def comparison(results: Results) -> list[str]:
    """One line for each cache that evicts, slabcache last."""
    header = [
        *("", "hit, one field read, ns", "evicting write, ns", "batch get, ns a row", "bytes an entry"),
        *("full gc.collect(), ms", "longest stall, ms", "the better choice when"),
    ]
    names = [name for name in EVICTING if name != "slabcache"] + ["slabcache"]
    lines = []
    for name in names:
        footprint = Subject("footprint", name, LARGE)
        lines.append(
            [
                PEERS[name].label,
                cell(results.ns(Subject("read", name, LARGE))),
                cell(results.ns(Subject("evicting_write", name, LARGE))),
                cell(results.ns(Subject("get_many", name, LARGE))),
                cell(results.fact(footprint, "entry_resident_bytes")),
                cell(results.fact(footprint, "collect_ns", 1e6)),
                cell(results.fact(Subject("stall", name, LARGE), "stall_ns", 1e6)),
                PEERS[name].choose_when,
            ]
        )
    return table(header, lines, words=(0, len(header) - 1))


def by_size(results: Results, test: str, names: Sequence[str]) -> list[str]:
    """Nanoseconds of each cache at each size."""
    header = ["ns", *(f"{entries:,} entries" for entries in SIZES)]
    lines = [
        [PEERS[name].label, *(cell(results.ns(Subject(test, name, entries))) for entries in SIZES)]
        for name in names
    ]
    return table(header, lines)


def batches(results: Results) -> list[str]:
    """Nanoseconds a row, beside the yardsticks."""
    header = ["ns", *(f"{entries:,} entries" for entries in SIZES)]
    rows = {
        "`get_many`": ("get_many", "slabcache"),
        "evicting `put_many`": ("put_many_evicting", "slabcache"),
        "`numpy.take` of 48-byte rows": ("take", "numpy.take"),
        "dependent read of memory": ("dependent_read", "dependent read"),
    }
    lines = [
        [label, *(cell(results.ns(Subject(*subject, entries))) for entries in SIZES)]
        for label, subject in rows.items()
    ]
    return table(header, lines)


def read_through(results: Results) -> list[str]:
    """Nanoseconds of a read-through by skew, and how many of the keys were there."""
    known = [subject for subject in results.times if subject.test == "read_through"]
    cases = sorted({(subject.entries, subject.skew) for subject in known})
    if not cases:
        return ["Not measured."]
    header = ["ns (% of hits)", *(f"{entries:,} entries, skew {skew}" for entries, skew in cases)]
    lines = []
    for name in EVICTING:
        line = [PEERS[name].label]
        for entries, skew in cases:
            subject = Subject("read_through", name, entries, skew=skew)
            hits = results.fact(subject, "hit_ratio", 0.01)
            line.append(f"{cell(results.ns(subject))} ({cell(hits)})")
        lines.append(line)
    return table(header, lines)


def behind(results: Results) -> list[str]:
    """Calls of the plain cache and of the one in front of a store; what both do in the background."""
    calls = {
        "`cache[a, b]`": "behind_hit",
        "`get_many`": "behind_get_many",
        "`cache[a, b] = value`": "behind_write",
        "`put_many`": "behind_put_many",
        "`increment_many`": "behind_increment_many",
    }
    header = ["ns"]
    for entries in (SMALL, LARGE):
        header += [f"SlabCache, {entries:,} entries", "WriteBehindCache", "ratio"]
    lines = []
    for label, test in calls.items():
        line = [label]
        for entries in (SMALL, LARGE):
            before, plain = (Subject(test, name, entries) for name in (bars.BEHIND, "slabcache"))
            ratio = results.ratio(before, plain)
            line += [
                cell(results.ns(plain)),
                cell(results.ns(before)),
                f"{ratio.value:.2f}" if ratio else "-",
            ]
        lines.append(line)
    return [*table(header, lines), "", *absorbed(results), "", *store_rows(results)]


def absorbed(results: Results) -> list[str]:
    """What comes in and goes out a second while a slow store is written behind."""
    header = ["1,000,000 entries", "increments a second", "rows saved a second", "growth of memory, MB"]
    lines = []
    for call in ("increment_many", "increment"):
        subject = Subject("absorbed", call, LARGE)
        saved, growth = (
            results.fact(subject, what, unit)
            for what, unit in (("saved_rows_per_second", 1), ("growth_bytes", 1e6))
        )
        lines.append(
            [f"`{call}`", rate(results.fact(subject, "increment_ns", 1e9)), cell(saved), cell(growth)]
        )
    return table(header, lines)


def store_rows(results: Results) -> list[str]:
    """Rows a second of the store."""
    kinds = {
        "1,000 rows a call, random keys that are there": "changed_us",
        "1,000 rows a call, new random keys": "new_us",
        "16,000 rows a call, new random keys": "new_in_large_calls_us",
        "1,000 rows a call, new keys that ascend": "ascending_us",
        "1,000 rows a call loaded, random keys": "loaded_us",
    }
    lines = [[label, rate(results.fact(bars.STORE, what, 1e6))] for label, what in kinds.items()]
    return table(["SQLiteStore, 1,000,000 rows and more", "rows a second"], lines)


def losses(results: Results) -> list[str]:
    """Every scalar call for which something else is faster."""
    lines = []
    for test, label in OPERATIONS.items():
        for entries in SIZES:
            ours = results.ns(Subject(test, "slabcache", entries))
            if ours is None:
                continue
            faster = [
                f"{PEERS[name].label} {cell(theirs)}"
                for name in results.fastest(test, entries, INSTALLED)
                if (theirs := results.ns(Subject(test, name, entries))) and theirs.value * EQUAL < ours.value
            ]
            if faster:
                lines.append(
                    f"- {label}, {entries:,} entries: slabcache {cell(ours)} ns; {', '.join(faster)}"
                )
    return lines or ["- none at the sizes measured"]


def conditions(results: Results) -> list[str]:
    """Machine, versions and commit in one paragraph."""
    machine = results.machine
    cpu = machine["cpu"]
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    commit = machine["commit"]
    loop = results.ns(Subject("loop", "loop", SMALL))
    costs = f" The loop and the making of the key's tuple alone take {cell(loop)} ns." if loop else ""
    return [
        f"{cpu.get('brand_raw', machine['processor'])}, {cpu.get('count', '?')} cores, {machine['system']} "
        f"{machine['machine']}, Python {machine['python_version']}; {versions}. "
        f"Commit {str(commit.get('id'))[:12]}{' with changes' if commit.get('dirty') else ''}, "
        f"{machine['date'][:10]}.{costs}"
    ]


def cell(figure: Figure | None) -> str:
    """The median, with as many digits as matter."""
    if figure is None:
        return "-"
    return f"{figure.value:,.0f}" if figure.value >= 10 else f"{figure.value:.2g}"


def rate(seconds: Figure | None) -> str:
    """How many a second, when one takes so long; to two digits, as more do not repeat."""
    return "-" if seconds is None else f"{float(f'{1 / seconds.value:.2g}'):,.0f}"


def shortcoming(results: Results) -> str | None:
    """What keeps results off the pages."""
    run = results.run
    if run is None:
        return "of a run that did not come to its end"
    if run.quick:
        return "of a quick run, whose figures mean nothing"
    if run.passes < FEWEST_PASSES:
        return "of a single pass"
    if not any(suites <= set(run.suites) for suites in (PLAIN, BEHIND)):
        wanted = " nor all of ".join(", ".join(sorted(suites)) for suites in (PLAIN, BEHIND))
        return f"of some suites alone, with neither all of {wanted}"
    return None


def main() -> int:
    """Exit code: 0, or 2 when there are no results or not all of them; then nothing is changed."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Put the results on pages.")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "build" / "bench", help="folder of the raw results"
    )
    options = parser.parse_args()
    try:
        results = Results(options.results)
    except FileNotFoundError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if lacking := shortcoming(results):
        print(f"bench: {options.results} has results {lacking}: run python -m bench", file=sys.stderr)
        return 2
    ran = set(results.run.suites) if results.run else set()
    named: dict[str, list[str]] = {}
    if ran >= PLAIN:
        from . import pictures

        pictures.draw(results, PICTURES)
        named |= blocks(results)
    if ran >= BEHIND:
        named |= behind_blocks(results)
    if NATIVE.exists():
        named["native"] = NATIVE.read_text().splitlines()
    places = {f"bench: {name}": lines for name, lines in named.items()}
    for page in PAGES:
        page.write_text(fill(page.read_text(), places))
    return 0


if __name__ == "__main__":
    sys.exit(main())
