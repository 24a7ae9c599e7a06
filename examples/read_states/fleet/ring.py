"""Which instance a user belongs to: the consistent hashing of nginx, `hash $user consistent`.

Each instance has 160 points on a circle of 32 bits. The first is the CRC-32 of its host, a NUL byte, its port
and four zero bytes; in the others the four bytes are the point before, least significant first. A user is at
the CRC-32 of the decimal digits of its number, and belongs to the first point from there on. So an instance
that comes takes its users from all others alike, and one that goes leaves its own to all of them
(ngx_http_upstream_init_chash and ngx_http_upstream_find_chash_point; of libketama, by way of
Cache::Memcached::Fast).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ring"]

POINTS = 160  # of an instance


class Ring:
    """Instances by their addresses, `HOST:PORT`, as they stand in the configuration of nginx."""

    def __init__(self, instances: Iterable[str]) -> None:
        self.instances = sorted(set(instances))  # one order everywhere: of two equal points the first counts
        if not self.instances:
            raise ValueError("a ring needs an instance")
        owners: dict[int, int] = {}
        for number, instance in enumerate(self.instances):
            for point in points_of(instance):
                owners.setdefault(point, number)
        self._points = sorted(owners)
        self._owners = [owners[point] for point in self._points]
        self._points_array = np.array(self._points, np.uint32)
        self._owners_array = np.array(self._owners, np.intp)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and self.instances == other.instances

    def owner(self, user: int) -> str:
        """The instance of a user."""
        place = bisect_left(self._points, crc32(b"%d" % user))
        return self.instances[self._owners[place % len(self._points)]]

    def owners(self, users: Any) -> NDArray[np.intp]:
        """The instances of many users, as places in `instances`."""
        places = np.searchsorted(self._points_array, crc32_of_digits(np.asarray(users, np.uint64)))
        found: NDArray[np.intp] = self._owners_array[places % len(self._points)]
        return found

    def owned_by(self, instance: str, users: Any) -> NDArray[np.bool_]:
        """Which of many users belong to an instance."""
        if instance not in self.instances:
            return np.zeros(np.shape(users), np.bool_)
        mine: NDArray[np.bool_] = self.owners(users) == self.instances.index(instance)
        return mine


def points_of(instance: str) -> Iterable[int]:
    host, _, port = instance.rpartition(":")
    base = crc32(f"{host}\0{port}".encode())
    point = 0
    for _ in range(POINTS):
        point = crc32(point.to_bytes(4, "little"), base)
        yield point


# CRC-32 is linear: that of digits is that of as many zeros, and of what each group of three digits changes.
ZEROS = np.array([crc32(b"0" * length) for length in range(21)], np.uint32)
CHANGES = np.array(
    [
        [crc32(b"%021d" % (part * 1000**group)) ^ crc32(b"0" * 21) for part in range(1000)]
        for group in range(7)
    ],
    np.uint32,
)
POWERS = np.array([10**exponent for exponent in range(1, 20)], np.uint64)


def crc32_of_digits(numbers: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """`crc32(b"%d" % number)` of each number, without the GIL."""
    crc: NDArray[np.uint32] = ZEROS[1 + np.searchsorted(POWERS, numbers, "right")]
    for changes in CHANGES:
        numbers, part = np.divmod(numbers, np.uint64(1000))
        crc ^= changes[part.astype(np.intp)]
    return crc
