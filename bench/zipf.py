"""Requests whose popularity falls with rank, as Zipf's law has it.

The key of rank r is asked for with a probability of 1 / r ** skew, over the sum of these for all ranks. The
draws are exact: a uniform number is looked up in the running sums. Keys are random numbers, so those that are
popular lie scattered over the memory of a cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from measuring.read_states import Rows

from .peers import OrderedDictPeer, Peer
from .workload import chunks, draw_keys, key_columns

KEYS_PER_ENTRY = 10


@dataclass(frozen=True)
class Zipf:
    """The same for each cache. popular: as many keys as there is room for, the most popular one last.

    warm: requests before anything is measured. measured: those after them.
    """

    popular: Rows
    warm: Rows
    measured: Rows


def draw(entries: int, skew: float, measured: int, seed: int) -> Zipf:
    rng = np.random.default_rng(seed)
    keys = draw_keys(rng, entries * KEYS_PER_ENTRY)
    sums = np.cumsum(np.arange(1.0, len(keys) + 1) ** -skew)
    ranks = np.searchsorted(sums, rng.random(entries + measured) * sums[-1])
    return Zipf(keys[entries - 1 :: -1], keys[ranks[:entries]], keys[ranks[entries:]])


def warm_up(peer: Peer, zipf: Zipf) -> None:
    """Bring a cache near to where requests would have brought it in the long run."""
    peer.fill(zipf.popular)
    for keys in chunks(zipf.warm):
        peer.read_through(*key_columns(keys))


def exact_misses(entries: int, zipf: Zipf) -> int:
    """How many of the measured requests an exact LRU cannot answer."""
    model = OrderedDictPeer(entries)
    warm_up(model, zipf)
    return sum(model.read_through(*key_columns(keys)) for keys in chunks(zipf.measured))
