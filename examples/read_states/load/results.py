"""All that was measured, as it is kept in a file: the report is made of nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["CacheRun", "Conditions", "FanOut", "Results", "Sample", "ServiceRun"]


class Conditions(msgspec.Struct, frozen=True):
    """What all runs had in common."""

    machine: str
    date: str
    command: str
    capacity: int
    records: int  # in the database
    users: int
    seconds: float
    rate: float  # actions of users a second
    requests: int  # in all
    flush_interval: float
    cores: tuple[int | None, int | None]
    bare_flush_interval: float  # without HTTP


class Sample(msgspec.Struct, frozen=True):
    """What the service said of itself, `at` seconds after the load began."""

    at: float
    metrics: dict[str, float]
    asked: int = 0  # records that it was asked for by then


class FanOut(msgspec.Struct, frozen=True):
    """One client that started: how many calls it made, and how long the slowest took, in nanoseconds."""

    calls: int
    slowest: int


class ServiceRun(msgspec.Struct, frozen=True):
    """One contender behind HTTP."""

    timeline: list[dict[str, str]]  # for each second, by kind of request, a histogram
    lag: str  # histogram of how late the generator sent
    taken: tuple[float, float]  # share of the cores of service and generator that others had
    failures: dict[str, int]  # by status
    fan_outs: list[FanOut]
    empty: Sample  # before the warm-up
    samples: list[Sample]  # during the load, the first before it
    throughput: list[float]  # requests a second as fast as they are answered, in each slice


class CacheRun(msgspec.Struct, frozen=True):
    """One contender without HTTP. Times in nanoseconds."""

    label: str
    entries: int
    filled: int  # bytes of resident memory, from before the cache was made until it was full
    growth: int  # the same until the end: what is written has to be marked, too
    tracked: int  # objects more in the collector's sight than before
    working: list[str]  # for each of its turns, a histogram of the processor's time of a call
    elapsed: list[str]  # the same by the clock
    loaded: int  # calls that had to wait for the database: not in the histograms
    pauses: list[int]  # the processor's time of each collection


class Results(msgspec.Struct, frozen=True):
    conditions: Conditions
    services: dict[str, ServiceRun]  # by the name of their cache
    caches: dict[str, CacheRun]

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Results:
        return msgspec.json.decode(path.read_bytes(), type=cls)
