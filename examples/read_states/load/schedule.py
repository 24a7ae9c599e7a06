"""The stream of requests. Each has the moment when it is due, whatever became of those before it.

A service's users do not wait for each other. A generator that waited for answers would send nothing during a
stall, and miss it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from read_states.load.population import CHANNELS, SEED, Population, draw_ranks

__all__ = ["FAN_OUTS", "MIX", "Kind", "Request", "make_schedule"]

FAN_OUTS = (50, 100)  # channels that a client looks into when it starts
SPACING = 0.001  # seconds between the single calls of a fan-out: all at once would measure their own queue
MESSAGE_NOW = 1_300_000_000_000_000_000  # later than all messages in the database


class Kind(StrEnum):
    READ = "read"
    ACK = "ack"
    PIN = "pin"
    BATCH = "batch"  # a session starts: 50 or 100 channels in one call
    MENTION = "mention"  # one message mentions a whole guild
    CALL = "call"  # a session starts: 50 or 100 calls, of which this is one


#: Shares of what users do.
MIX = {
    Kind.READ: 0.32,
    Kind.ACK: 0.32,
    Kind.PIN: 0.02,
    Kind.BATCH: 0.28,
    Kind.MENTION: 0.05,
    Kind.CALL: 0.01,
}


class Request(NamedTuple):
    """user, channels: whose states; a mention has many users, a batch many channels. fan_out: its number."""

    due: float
    kind: Kind
    users: list[int]
    channels: list[int]
    number: int = 0  # of the message, or seconds since 1970
    fan_out: int = -1


def make_schedule(
    population: Population, rate: float, seconds: float, seed: int = SEED, mix: dict[Kind, float] = MIX
) -> list[Request]:
    """`rate` actions of users a second, at equal distances; the calls of a fan-out come on top of them."""
    rng = np.random.default_rng(seed)
    count = round(rate * seconds)
    shares = np.array(list(mix.values())) / sum(mix.values())
    kinds = rng.choice([kind.value for kind in mix], count, p=shares)
    ranks = draw_ranks(rng, count, population.users)
    numbers = draw_ranks(rng, count, CHANNELS)
    widths = rng.choice(FAN_OUTS, count)
    requests: list[Request] = []
    for action, (kind, rank, number, width) in enumerate(
        zip(map(Kind, kinds), ranks.tolist(), numbers.tolist(), widths.tolist(), strict=True)
    ):
        requests += _requests(population, action, action / rate, kind, rank, number, width)
    return sorted(requests, key=lambda request: request.due)


def _requests(
    population: Population, action: int, due: float, kind: Kind, rank: int, number: int, width: int
) -> Iterator[Request]:
    user, channel = population.user(rank), population.channel(rank, number)
    match kind:
        case Kind.BATCH:
            yield Request(due, kind, [user], population.channels(rank, width))
        case Kind.MENTION:
            yield Request(due, kind, population.guild(rank), [channel])
        case Kind.CALL:
            for order, one in enumerate(population.channels(rank, width)):
                yield Request(due + order * SPACING, kind, [user], [one], fan_out=action)
        case _:  # the number matters to acks and pins alone: each is later than all before it
            later = MESSAGE_NOW + action if kind is Kind.ACK else 1_700_000_000 + action
            yield Request(due, kind, [user], [channel], later)
