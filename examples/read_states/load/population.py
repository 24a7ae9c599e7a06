"""Who uses the service: a few users much, most of them little, each in channels of their guild.

Popularity falls with rank as in Zipf's law (a bounded Pareto distribution): 1 / rank**SKEW for users, and
again for the channels of each user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANNELS", "GUILD", "SKEW", "Population"]

CHANNELS = 100  # of each user
GUILD = 200  # users who share their channels
SKEW = 0.8
SEED = 20200204
SPREAD = 0x9E3779B97F4A7C15  # odd, so that multiplying by it modulo 2**63 maps one to one


@dataclass(frozen=True)
class Population:
    """Users by their popularity: rank 0 is the most active one."""

    users: int

    @property
    def records(self) -> int:
        return self.users * CHANNELS

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Place of each rank: active and idle users are mixed in every guild."""
        return np.random.default_rng(SEED).permutation(self.users)

    def user(self, rank: int) -> int:
        return _identifier(int(self._places[rank]))

    def channel(self, rank: int, number: int) -> int:
        """A channel of a user; number 0 is the one that its members look into most."""
        return _identifier(int(self._places[rank]) // GUILD * CHANNELS + number)

    def channels(self, rank: int, count: int = CHANNELS) -> list[int]:
        return [self.channel(rank, number) for number in range(count)]

    def guild(self, rank: int) -> list[int]:
        """All who share the channels of a user."""
        first = int(self._places[rank]) // GUILD * GUILD
        return [_identifier(place) for place in range(first, min(first + GUILD, self.users))]

    def everybody(self) -> Iterator[tuple[int, list[int]]]:
        """Users with their channels, the most active one last: an LRU that has read them keeps that one."""
        for rank in reversed(range(self.users)):
            yield self.user(rank), self.channels(rank)


def draw_ranks(rng: np.random.Generator, count: int, population: int) -> NDArray[np.int64]:
    """Ranks from 0 on, probability ~ 1 / (rank + 1)**SKEW: the continuous distribution, inverted."""
    exponent = 1 - SKEW
    stretched: NDArray[Any] = 1 + rng.random(count) * ((population + 1) ** exponent - 1)
    return np.minimum((stretched ** (1 / exponent)).astype(np.int64) - 1, population - 1)


def _identifier(number: int) -> int:
    """Spread small numbers over 63 bits, one to one, as identifiers are."""
    return (number + 1) * SPREAD % 2**63
