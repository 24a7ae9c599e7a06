"""slabcache: a typed LRU cache whose entries the garbage collector never sees.

>>> from slabcache import SlabCache
>>> cache = SlabCache(1000, key="u8", value=[("seen", "u8"), ("mentions", "u4")])
>>> cache[42] = (1001, 0)
>>> cache.increment(42, "mentions")
1
>>> cache[42]
Record(seen=1001, mentions=1)
"""

from slabcache import pickles as pickles  # which registers what it is for
from slabcache.cache import SlabCache
from slabcache.codec.record import Record
from slabcache.errors import BackpressureError, ClosedError, RowsRejected, SumOverflowError
from slabcache.stats import Stats
from slabcache.write_behind import WriteBehindCache, WriteBehindStats

__version__ = "0.1.0"
__all__ = [
    "BackpressureError",
    "ClosedError",
    "Record",
    "RowsRejected",
    "SlabCache",
    "Stats",
    "SumOverflowError",
    "WriteBehindCache",
    "WriteBehindStats",
]
