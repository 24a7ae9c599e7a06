"""The requests to replay, and what an LRU holds when the first of them arrives.

The caches are not warmed by a replay. What an exact LRU holds after a stream is known without one: the keys
used most recently, in the order of their last use. That list is put into each contender, which saves minutes
and leaves each in the same state. The requests measured afterwards are no part of the stream behind the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: One request as the service reads it off the wire; `service.REQUEST` decodes it.
REQUEST_DTYPE = np.dtype([("user_id", "<u8"), ("channel_id", "<u8"), ("write", "?")])

CHANNELS_PER_USER = 8
KEYS_PER_ENTRY = 4
SKEW = 0.9
WRITE_SHARE = 0.1
SEED = 20200204
SHORTEST_TRACE = 1_000

Keys = NDArray[np.uint64]


class DemoError(Exception):
    """What the user can put right: its text is the whole message."""


@dataclass(frozen=True)
class Workload:
    """Requests with the cache that meets them.

    warm: the keys in the cache at the start, as many as it holds, least recent first, as `REQUEST_DTYPE`.
    requests: the stream that is measured, as `REQUEST_DTYPE`.
    description: lines for the report that state where both come from.
    """

    warm: NDArray[np.void]
    requests: NDArray[np.void]
    description: list[str]

    @property
    def entries(self) -> int:
        """Capacity of each cache."""
        return len(self.warm)


def generate(entries: int, requests: int) -> Workload:
    """Make a skewed stream: popularity falls with rank as in Zipf's law (a bounded Pareto distribution).

    The stream behind the warm cache and the measured one are different draws from the same distribution.
    """
    rng = np.random.default_rng(SEED)
    population = entries * KEYS_PER_ENTRY
    recent = np.empty(0, np.int64)  # ranks in the order of their last use, the most recent first
    drawn = 0
    while len(recent) < entries:
        ranks = _draw_ranks(rng, 2 * entries, population)
        drawn += len(ranks)
        # The chunk counts as earlier than those before it: the draws are independent, so their order is free.
        recent = _first_occurrences(np.concatenate([recent, ranks[::-1]]))
    measured = _draw_ranks(rng, requests, population)
    return Workload(
        warm=_pack(*_ids_of_ranks(recent[:entries][::-1]), rng=None),
        requests=_pack(*_ids_of_ranks(measured), rng=rng),
        description=[
            f"generated stream: {population:,} keys, popularity ~ 1 / rank^{SKEW} (bounded Pareto), seed "
            f"{SEED}",
            f"warm cache: the state of an LRU after {drawn:,} requests; measured: {requests:,} further draws",
        ],
    )


def from_trace(path: Path, entries: int, requests: int) -> Workload:
    """Replay a recorded stream of keys, for as many users at once as it takes to need a cache of `entries`.

    A trace has fewer keys than a service has. So each of several users plays it, as a stream of channels,
    from a starting point of its own: per user the trace's own locality, in total a cache that holds half of
    all keys. What a user plays in the measured part is left out of what it has played before.
    """
    trace = _read_trace(path)
    distinct, codes = np.unique(trace, return_inverse=True)
    users = max(1, round(2 * entries / len(distinct)))
    slice_length = min(-(-requests // users), len(trace) // 2)
    rng = np.random.default_rng(SEED)
    starts = rng.integers(len(trace), size=users)
    warm_user, warm_code = _recent_by_user(codes, len(distinct), starts, slice_length, entries)
    turn = np.arange(min(requests, users * slice_length))
    user = turn % users
    channels = trace[(starts[user] + turn // users) % len(trace)]
    return Workload(
        warm=_pack(_scramble(warm_user), distinct[warm_code], rng=None),
        requests=_pack(_scramble(user), channels, rng=rng),
        description=[
            f"trace {path.name}: {len(trace):,} requests for {len(distinct):,} keys, played by {users:,} "
            "users at once, each with keys of its own and from a start of its own",
            f"warm cache: the state of an LRU after each user's {len(trace) - slice_length:,} requests "
            f"before its start; measured: the {slice_length:,} after it, which the former leave out",
        ],
    )


def _read_trace(path: Path) -> Keys:
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = archive["keys"]
    except FileNotFoundError:
        raise DemoError(f"trace {path}: no such file") from None
    except KeyError:
        raise DemoError(f"trace {path}: no array named 'keys' in it") from None
    except Exception:  # numpy and zipfile raise a dozen kinds for what is not, or no longer, such a file
        raise DemoError(f"trace {path}: not a readable .npz file") from None
    if keys.dtype.kind not in "iu" or keys.ndim != 1:
        raise DemoError(f"trace {path}: 'keys' must be a row of integers, not {keys.ndim}-d {keys.dtype}")
    if len(keys) < SHORTEST_TRACE:
        raise DemoError(f"trace {path}: {len(keys):,} requests; at least {SHORTEST_TRACE:,} are needed")
    return np.asarray(keys, np.uint64)


def _recent_by_user(
    codes: NDArray[np.intp], distinct: int, starts: NDArray[np.int64], slice_length: int, entries: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Users and codes of the `entries` pairs used last before the measured part, least recent first."""
    length = len(codes) - slice_length
    last_use = np.full((len(starts), distinct), -1)
    twice = np.concatenate([codes, codes])
    order = np.arange(length)
    for user, start in enumerate(starts):
        begin = start + slice_length
        last_use[user, twice[begin : begin + length]] = order  # of several uses of a key, the last one stays
    flat = np.argsort(last_use, axis=None, kind="stable")[-entries:]
    flat = flat[last_use.ravel()[flat] >= 0]
    return flat // distinct, flat % distinct


def _draw_ranks(rng: np.random.Generator, count: int, population: int) -> NDArray[np.int64]:
    """Ranks from 1 to `population`, probability ~ 1 / rank^SKEW: the continuous distribution, inverted."""
    exponent = 1 - SKEW
    stretched: NDArray[np.float64] = 1 + rng.random(count) * ((population + 1) ** exponent - 1)
    return np.asarray(stretched ** (1 / exponent), np.int64)


def _first_occurrences(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The distinct values in the order in which they first occur."""
    distinct, first = np.unique(values, return_index=True)
    return distinct[np.argsort(first)]


def _ids_of_ranks(ranks: NDArray[np.int64]) -> tuple[Keys, Keys]:
    return _scramble(ranks // CHANNELS_PER_USER), _scramble(ranks)


def _scramble(numbers: NDArray[np.int64]) -> Keys:
    """Spread small numbers over 64 bits, one to one, as identifiers are (the finalizer of splitmix64)."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _pack(users: Keys, channels: Keys, rng: np.random.Generator | None) -> NDArray[np.void]:
    """Requests for the keys; with `rng`, `WRITE_SHARE` of them write."""
    requests = np.zeros(len(users), REQUEST_DTYPE)
    requests["user_id"] = users
    requests["channel_id"] = channels
    if rng is not None:
        requests["write"] = rng.random(len(users)) < WRITE_SHARE
    return requests
