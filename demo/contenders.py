"""The caches that are compared, each with the collector set as it claims. All give the same answers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

from measuring.caches import Cache, LruDictCache, NoCache, ObjectCache, SlabCacheCache, TupleCache

#: How far the thresholds are raised: young collections become this much rarer, and with them the full ones.
THRESHOLD_FACTOR = 4


def leave_collector(_entries: int) -> None:
    """The collector as Python sets it."""


def raise_thresholds(_entries: int) -> None:
    """What GOGC is in Go: collect more rarely."""
    first, second, third = gc.get_threshold()
    gc.set_threshold(first * THRESHOLD_FACTOR, second, third)


def load_ballast(entries: int) -> list[list[None]]:
    """As many empty lists as entries: a full collection waits until a quarter of all survivors is new."""
    return [[] for _ in range(entries)]


def freeze_heap(_entries: int) -> None:
    """Take all that lives now out of the collector's sight. Entries made later are in it again."""
    gc.freeze()


@dataclass(frozen=True)
class Contender:
    """A cache and the collector it runs with.

    before_fill and after_fill get the number of entries; what they return is kept alive until the run ends.
    caches: False for the floor, of which no hit ratio and no bytes an entry are asked.
    """

    name: str
    label: str
    cache: Callable[[int], Cache]
    before_fill: Callable[[int], object] = leave_collector
    after_fill: Callable[[int], object] = leave_collector
    caches: bool = True


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("objects", "Python objects", ObjectCache),
        Contender("thresholds", f"objects, thresholds x {THRESHOLD_FACTOR}", ObjectCache, raise_thresholds),
        Contender("ballast", "objects, ballast", ObjectCache, load_ballast),
        Contender("freeze", "objects, gc.freeze", ObjectCache, after_fill=freeze_heap),
        Contender("tuples", "fewer pointers: tuples", TupleCache),
        Contender("lru_dict", "lru-dict, flat tuples", LruDictCache),
        Contender("lru_freeze", "lru-dict, gc.freeze", LruDictCache, after_fill=freeze_heap),
        Contender("slabcache", "slabcache", SlabCacheCache),
        Contender("floor", "no cache (floor)", NoCache, caches=False),
    )
}
