"""The smallest case that still fails: parts of it are dropped as long as it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any


def shrink(case: Any, fails: Callable[[Any], bool], seconds: float = 30.0) -> Any:
    """`case.ops` with as few operations as a simple search finds, and as little as may be in each."""
    end = time.monotonic() + seconds

    def still(ops: tuple[Any, ...]) -> bool:
        return time.monotonic() < end and fails(replace(case, ops=ops))

    ops = case.ops
    step = max(1, len(ops) // 2)
    while step:
        at = 0
        while at < len(ops):
            fewer = ops[:at] + ops[at + step :]
            if still(fewer):
                ops = fewer
            else:
                at += step
        step //= 2
    progress = True
    while progress:
        progress = False
        for at, op in enumerate(ops):
            for less in op.shorter():
                fewer = (*ops[:at], less, *ops[at + 1 :])
                if still(fewer):
                    ops, progress = fewer, True
                    break
    return replace(case, ops=ops)
