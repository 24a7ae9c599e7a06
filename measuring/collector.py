"""When the garbage collector ran."""

from __future__ import annotations

import gc
from array import array
from time import perf_counter_ns, thread_time_ns

__all__ = ["CollectorLog"]


class CollectorLog:
    """Collections that fall into its `with` blocks, in arrays, which are no work for the collector.

    clock, worked: nanoseconds by the clock and by the thread's processor time; of each collection, when it
    began, then when it ended. generations: one for each.
    """

    def __init__(self) -> None:
        self.clock = array("q")
        self.worked = array("q")
        self.generations = array("q")

    def __enter__(self) -> CollectorLog:
        gc.callbacks.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self)

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.generations.append(info["generation"])
        self.worked.append(thread_time_ns())
        self.clock.append(perf_counter_ns())

    def since(self, begin: int) -> array[int]:
        """Start, end and generation of each in a row, by the clock, counted from `begin`."""
        rows = zip(self.clock[::2], self.clock[1::2], self.generations, strict=True)
        return array("q", (it for start, end, number in rows for it in (start - begin, end - begin, number)))

    def pauses(self) -> list[int]:
        """The processor time of each."""
        return [end - start for start, end in zip(self.worked[::2], self.worked[1::2], strict=True)]
