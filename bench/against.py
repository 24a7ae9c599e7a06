"""Two builds side by side: `make bench-against REV=main~3` compares a commit with the tree as it is.

Both are built as users get them, in build/against. Then come the instructions of the hot paths, by callgrind,
and their times: medians of many rounds of two processes that take turns. Exit code 1 where a call executes
more instructions than at that commit.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from measuring.turns import finish, take_turns, wait

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "against"
ROUNDS = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("revision", nargs="?", help="of the other build")
    parser.add_argument("--site", type=Path, help=argparse.SUPPRESS)  # in a worker
    options = parser.parse_args()
    if options.site:
        work(options.site)
    if not options.revision:
        parser.error("a revision is missing: make bench-against REV=main~1")
    before, after = build(options.revision), build(None)
    code = compare_instructions(before, after)
    compare_times(before, after)
    return code


def build(revision: str | None) -> Path:
    """Where a build is; None is the tree as it is."""
    tag = sys.implementation.cache_tag + sys.abiflags
    folder = FOLDER / f"tree-{tag}"
    if revision is not None:
        commit = run("git", "rev-parse", "--verify", f"{revision}^{{commit}}").strip()
        folder = FOLDER / f"{commit}-{tag}"
        if (folder / "site").exists():
            return folder / "site"
        source = folder / "source"
        source.mkdir(parents=True, exist_ok=True)
        run("git", "archive", "--output", f"{folder}/source.tar", commit)
        run("tar", "--extract", "--file", f"{folder}/source.tar", "--directory", f"{source}")
    else:
        source = ROOT
        shutil.rmtree(folder, ignore_errors=True)
    print(f"bench: building {revision or 'the tree'}", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    site = folder / "site"
    shutil.rmtree(f"{site}.part", ignore_errors=True)
    run(*pip, "--no-build-isolation", "--no-deps", "--target", f"{site}.part", f"{source}")
    Path(f"{site}.part").rename(site)
    return site


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def compare_instructions(before: Path, after: Path) -> int:
    """The exit code of the comparison; 0 where there is no valgrind to count them."""
    if not shutil.which("valgrind"):
        print("bench: no instructions, as valgrind is not installed", file=sys.stderr)
        return 0
    figures = FOLDER / "instructions.json"
    figures.unlink(missing_ok=True)
    print("instructions             after     before", flush=True)
    for site, arguments in ((before, ["--json", figures]), (after, ["--against", figures])):
        done = subprocess.run(
            [sys.executable, "-m", "bench.instructions", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(site)},
            stdout=subprocess.DEVNULL if site == before else None,
        )
        if site == before and done.returncode:
            raise SystemExit("bench: that commit cannot do what is counted")
    return done.returncode


def compare_times(before: Path, after: Path) -> None:
    """Nanoseconds of a call, or of a row of a batch."""
    old, new = take_turns([("bench.against", "--site", site) for site in (before, after)])
    print(f"\n{'nanoseconds':32} {'after':>10} {'before':>10} {'ratio':>8}")
    for name in new:
        ratios = [a / b for a, b in zip(new[name], old.get(name, []), strict=False)]
        if ratios:
            times = statistics.median(new[name]), statistics.median(old[name])
            print(f"{name:32} {times[0]:10.1f} {times[1]:10.1f} {statistics.median(ratios):8.3f}")


def work(site: Path) -> None:
    """Time each sample of bench/instructions.py once in each round."""
    sys.path.insert(0, str(site))
    import slabcache

    from .instructions import CALLS, samples

    assert Path(slabcache.__file__).is_relative_to(site), slabcache.__file__
    times: dict[str, list[float]] = {}
    gc.disable()
    for _ in range(ROUNDS):
        wait()
        loop = 0.0
        for name, calls, call in samples():
            call()  # what only the first time does
            start = perf_counter()
            call()
            took = (perf_counter() - start) * 1e9 / calls
            if name == "loop":
                loop = took
            elif not name.startswith("("):
                times.setdefault(name, []).append(took - (loop if calls == CALLS else 0.0))
    finish(times)


if __name__ == "__main__":
    sys.exit(main())
