"""make fuzz: the caches against their models, with operations drawn from a seed.

A failure prints the seed, the number of the case, and the smallest list of operations that still fails.
`--case` carries out one case alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import logging
import os
import sys
import time
import traceback
from random import Random
from typing import Any

from fuzz import behind, cache, crowd
from fuzz.shrink import shrink

TRIES = 5  # of a case with threads, until it fails again


def fuzz(module: Any, seed: int, seconds: float, only: int | None) -> bool:
    """Whether all cases passed."""
    name = _name(module)
    start = time.monotonic()
    done = cases = 0
    places: set[object] = set()
    for number in itertools.count() if only is None else [only]:
        if only is None and time.monotonic() >= start + seconds:
            break
        case = module.draw_case(Random(f"{seed}/{number}"))
        try:
            done += module.run_case(case)
        except Exception as error:
            if _where(error) not in places:  # once each
                places.add(_where(error))
                traceback.print_exception(error)
                print(f"again with: --seed {seed} --only {name} --case {number}", flush=True)
                _tell(module, case, _where(error))
        cases += 1
    took = time.monotonic() - start
    print(f"{name}: {cases} cases, {done} operations, {done / took:.0f} a second", flush=True)
    return not places


def _tell(module: Any, case: Any, where: tuple[object, ...]) -> None:
    """Print the smallest case that fails like this one."""

    def fails(smaller: Any) -> bool:
        for _ in range(1 if module is cache else TRIES):
            try:
                module.run_case(smaller)
            except Exception as other:
                return _where(other) == where
        return False

    small = shrink(case, fails)
    try:
        module.run_case(small)
    except Exception as again:
        print(small.program())
        print(f"{type(again).__name__}: {again}", flush=True)
    else:
        print("it does not fail each time:", small.program(), sep="\n", flush=True)


def _name(module: Any) -> str:
    return str(module.__name__.rpartition(".")[2])


def _where(error: BaseException) -> tuple[object, ...]:
    """What makes a smaller case the same failure."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error), frames[-1].filename, frames[-1].lineno


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of all together")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=("cache", "crowd", "behind"))
    parser.add_argument("--case", type=int, help="this one alone; with --only")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else Random(os.urandom(8)).randrange(10**9)
    faulthandler.enable()
    sys.setswitchinterval(1e-5)  # threads take turns often
    logging.getLogger("slabcache").addHandler(logging.NullHandler())
    logging.getLogger("slabcache").propagate = False
    print(f"--seed {seed}", flush=True)
    modules = [
        module for module in (cache, crowd, behind) if (options.only or _name(module)) == _name(module)
    ]
    passed = [fuzz(module, seed, options.seconds / len(modules), options.case) for module in modules]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
