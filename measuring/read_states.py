"""Read States: the small record of each (user, channel) that is cached wherever something is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEY", "VALUE", "Fields", "ReadState", "Rows", "load", "values_of"]

KEY = np.dtype([("user_id", "u8"), ("channel_id", "u8")])
VALUE = np.dtype([("last_message_id", "u8"), ("mention_count", "u4"), ("last_pin_ts", "u8")])

Rows = NDArray[np.void]
Fields = tuple[int, int, int]


@dataclass
class ReadState:
    """A record as services write it: an ordinary object."""

    last_message_id: int
    mention_count: int
    last_pin_ts: int


def load(user: int, channel: int) -> Fields:
    """Stand for the store: the record of a key, as new objects; two large numbers and a small one."""
    return user ^ channel, channel & 7, channel >> 22


def values_of(keys: Rows) -> Rows:
    """The same records, of many keys."""
    values = np.zeros(len(keys), VALUE)
    values["last_message_id"] = keys["user_id"] ^ keys["channel_id"]
    values["mention_count"] = keys["channel_id"] & np.uint64(7)
    values["last_pin_ts"] = keys["channel_id"] >> np.uint64(22)
    return values
