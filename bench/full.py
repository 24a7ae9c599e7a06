"""A full cache together with its keys, in the state that a measurement asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from measuring.read_states import Rows

from .peers import Peer, SlabCachePeer
from .workload import draw_keys


class FullCache:
    """A cache of `entries`, filled, and read once in random order.

    `present` draws keys that are there until the first write of one that is not. `turn_over` replaces
    everything once, so that the order of evictions has nothing to do with the order in memory either.
    """

    def __init__(self, peer: type[Peer], entries: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.peer = peer(entries)
        self.keys = draw_keys(self.rng, entries)
        self.turned_over = False
        self.peer.fill(self.keys)
        if misses := self.peer.touch(self.keys[self.rng.permutation(entries)]):
            raise AssertionError(f"{peer.label}: {misses} of {entries} keys that must be there are not")

    @property
    def slabcache(self) -> Any:
        """The cache itself, for the calls that no other cache has."""
        assert isinstance(self.peer, SlabCachePeer)
        return self.peer.cache

    def turn_over(self) -> None:
        if self.turned_over:
            return
        self.turned_over = True
        entries = len(self.keys)
        self.peer.fill(draw_keys(self.rng, entries))
        if self.peer.evicts and len(self.peer) != entries:
            raise AssertionError(f"{self.peer.label}: {len(self.peer)} entries instead of {entries}")

    def present(self, rows: int) -> Rows:
        if self.turned_over:
            raise AssertionError("evictions come last, as they leave none of the known keys")
        return self.keys[self.rng.integers(len(self.keys), size=rows)]

    def absent(self, rows: int) -> Rows:
        return draw_keys(self.rng, rows)
