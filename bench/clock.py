"""What the suites measure with: a clock for rounds, and things that are kept from test to test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

QUICK_ROUNDS = 2

Result = TypeVar("Result")
Setup = Callable[[], tuple[Any, ...]]


class Keep:
    """What takes long to make, kept for the tests of one size: ``keep(what, entries, make)``."""

    def __init__(self) -> None:
        self.entries = 0
        self.things: dict[str, Any] = {}

    def __call__(self, what: str, entries: int, make: Callable[[], Result]) -> Result:
        if entries != self.entries:
            self.entries = entries
            self.things.clear()
        if what not in self.things:
            self.things[what] = make()
        thing: Result = self.things[what]
        return thing


@dataclass(frozen=True)
class Clock:
    """Times rounds of a function; what `setup` makes as its arguments is not timed."""

    benchmark: BenchmarkFixture
    turn: int
    quick: bool

    def __call__(
        self,
        function: Callable[..., object],
        setup: Setup,
        *,
        name: str,
        entries: int,
        operations: int,
        rounds: int = 12,
        **facts: object,
    ) -> None:
        """Record, beside the times, who (`name`), at which size, and how many operations a round has."""
        self.benchmark.extra_info.update(
            name=name, entries=entries, operations=operations, turn=self.turn, **facts
        )
        self.benchmark.pedantic(
            function,
            setup=lambda: (setup(), {}),
            rounds=QUICK_ROUNDS if self.quick else rounds,
            warmup_rounds=1 if self.quick else warm_ups(entries, operations),
        )


def warm_ups(entries: int, operations: int) -> int:
    """Rounds until the processor's caches hold what they can: all of a small cache, a part of a large one."""
    few, most, all_entries = 3, 24, 2 * entries // operations
    return 0 if operations == 1 else min(few + all_entries, most)
