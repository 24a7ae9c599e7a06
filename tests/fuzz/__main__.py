"""make fuzz: the caches against their models, with operations drawn from a seed.

A failure prints the seed, the number of the case, and the smallest list of operations that still fails.
`--case` carries out one case alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
import traceback
from random import Random

from fuzz import cache
from fuzz.shrink import shrink


def fuzz_cache(seed: int, seconds: float, only: int | None) -> bool:
    """Whether all cases passed."""
    start = time.monotonic()
    end = start + seconds
    done = cases = 0
    places: set[object] = set()
    numbers = [only] if only is not None else iter(range(2**62))
    for number in numbers:
        if only is None and time.monotonic() >= end:
            break
        case = cache.draw_case(cache.seeded(seed, number))
        try:
            done += cache.run_case(case)
        except Exception as error:
            if _where(error) not in places:  # once each
                places.add(_where(error))
                _tell(seed, number, case, error)
        cases += 1
    print(f"SlabCache: {cases} cases, {done} operations, {done / (time.monotonic() - start):.0f} a second")
    return not places


def _tell(seed: int, number: int, case: cache.Case, error: Exception) -> None:
    where = _where(error)

    def fails(smaller: cache.Case) -> bool:
        try:
            cache.run_case(smaller)
        except Exception as other:
            return _where(other) == where
        return False

    traceback.print_exception(error)
    print(f"case {number} of seed {seed} fails; --seed {seed} --case {number} carries it out again")
    small = shrink(case, fails)
    try:
        cache.run_case(small)
    except Exception as again:
        print(small.program())
        print(f"{type(again).__name__}: {again}")
    else:
        print("a second time it does not fail:", case.program(), sep="\n")


def _where(error: BaseException) -> tuple[object, ...]:
    """What makes a smaller case the same failure."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error), frames[-1].filename, frames[-1].lineno


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="both together")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", type=int, default=None, help="of the cache in memory")
    parser.add_argument("--only", choices=("cache", "behind"))
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else Random(os.urandom(8)).randrange(10**9)
    faulthandler.enable()
    print(f"--seed {seed}", flush=True)
    ok = fuzz_cache(seed, options.seconds / 2, options.case)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
