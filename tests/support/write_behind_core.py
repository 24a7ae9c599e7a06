"""What a `WriteBehindCache` has in memory, without its thread: every step is the test's."""

from __future__ import annotations

from slabcache.behind.core import WriteBehindCore
from slabcache.behind.drain import Drained

NEVER = 2**63  # a moment that does not come


class Core(WriteBehindCore):
    """Numbers by numbers."""

    def __init__(self, capacity: int, max_pending: int) -> None:
        super().__init__(capacity, max_pending, "u8", "i8", None)


def drained(core: WriteBehindCore, until: int, limit: int) -> Drained:
    batch = Drained(core, limit)
    core._drain(batch, until)
    return batch
