"""What is logged: neither an attacker nor an outage fills the disk.

A request that fails is a line, without a traceback; of lines of one kind the first in each second is written.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from dataclasses import dataclass

__all__ = ["Repeats", "log_failure", "set_up"]

PAUSE = 1.0  # seconds between lines of a kind
TEXT_MAX = 200  # characters of what an error says, which may have been said by a client

log = logging.getLogger("read_states")


@dataclass
class Kind:
    """Lines of one place in the code, about one type of error."""

    since: float
    left_out: int = 0


class Repeats(logging.Filter):
    """Lets the first line of a kind through in each PAUSE; it tells how many were left out before it."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[object, Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[0] if record.exc_info else getattr(record, "error", None)
        place = record.pathname, record.lineno, error
        now = time.monotonic()
        kind = self._kinds.get(place)
        if kind is None or now - kind.since >= PAUSE:
            if kind is not None and kind.left_out:
                record.msg = f"{record.getMessage()} (and {kind.left_out} more like it before)"
                record.args = ()
            self._kinds[place] = Kind(now)
            return True
        kind.left_out += 1
        return False


def set_up() -> None:
    """All loggers of the process write to stderr, those of uvicorn and of the database's driver, too."""
    handler = logging.StreamHandler()
    handler.addFilter(Repeats())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[handler])


def log_failure(error: BaseException) -> None:
    """A line for what a client is told 500 for: a row that is damaged, or a mistake of ours."""
    original = error.__cause__ or error  # those who wait for one load may have an error of their own each
    place = "an unknown place"
    if places := deque(traceback.walk_tb(original.__traceback__), maxlen=1):
        ((frame, line),) = places
        place = f"{frame.f_code.co_filename}:{line}"
    text = " ".join(str(error).split())[:TEXT_MAX]
    name = type(error).__name__
    log.error("a request has failed: %s: %s, at %s", name, text, place, extra={"error": name})
