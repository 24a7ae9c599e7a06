"""Figures of caches for Prometheus: the extra `slabcache[prometheus]`."""

from __future__ import annotations

from collections.abc import Iterable

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "slabcache.prometheus needs prometheus-client: pip install 'slabcache[prometheus]'"
    ) from error

from slabcache.cache import SlabCache
from slabcache.write_behind import WriteBehindCache

__all__ = ["CacheCollector"]

COUNTERS = {
    "hits": "Look-ups that found their key",
    "misses": "Look-ups that did not",
    "insertions": "Entries created",
    "updates": "Writes to an entry that was there",
    "deletions": "Entries removed by the user",
    "evictions": "Entries removed to make room",
}
GAUGES = {"size": "Entries now", "capacity": "Entries at most"}
FLUSH_COUNTERS = {
    "flushes": "Calls of the store that succeeded",
    "flushed_rows": "Rows that the store has confirmed",
    "flush_errors": "Attempts to write behind that failed",
    "rejected_rows": "Rows that the store has refused for good",
}
FLUSH_GAUGES = {
    "dirty": "Rows that the store does not have yet",
    "pending": "Evicted rows that the store does not have yet",
    "failing": "Rows that the store does not take, each by itself; they are tried again",
    "oldest_dirty_age": "Seconds since the oldest of the dirty rows became so",
}


class CacheCollector(Collector):
    """Exports `stats()` of caches when it is scraped; each has the label `cache`, its name here.

    Register it with a registry of `prometheus_client`: one for all caches, as each makes the same metrics. A
    cache that has been closed is left out. O(caches). TypeError for what is no cache.

    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> from slabcache import SlabCache
    >>> cache = SlabCache(10, key="u8", value="u4")
    >>> cache.get(1)
    >>> registry = CollectorRegistry()
    >>> registry.register(CacheCollector(counts=cache))
    >>> print(generate_latest(registry).decode())   # doctest: +ELLIPSIS
    # HELP slabcache_hits_total Look-ups that found their key
    # TYPE slabcache_hits_total counter
    slabcache_hits_total{cache="counts"} 0.0
    # HELP slabcache_misses_total Look-ups that did not
    # TYPE slabcache_misses_total counter
    slabcache_misses_total{cache="counts"} 1.0
    ...
    """

    def __init__(self, /, **caches: SlabCache | WriteBehindCache) -> None:
        for name, cache in caches.items():
            if not isinstance(cache, (SlabCache, WriteBehindCache)):
                raise TypeError(f"{name} must be a cache, not {type(cache).__name__}")
        self._caches = caches

    def describe(self) -> Iterable[Metric]:
        """What a registry knows it by: a second one is refused."""
        return CacheCollector().collect()

    def collect(self) -> Iterable[Metric]:
        """The metrics at this moment; what `prometheus_client` calls."""
        stats = {}
        for name, cache in self._caches.items():
            if not (isinstance(cache, WriteBehindCache) and cache.closed):
                stats[name] = cache.stats()
        behind = {name: figures for name, figures in stats.items() if hasattr(figures, "dirty")}
        for chosen, counters, gauges in (
            (stats, COUNTERS, GAUGES),
            (behind, FLUSH_COUNTERS, FLUSH_GAUGES),
        ):
            for family, fields in ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges)):
                for field, text in fields.items():
                    unit = "_seconds" if field.endswith("_age") else ""
                    metric = family(f"slabcache_{field}{unit}", text, labels=["cache"])
                    for name, figures in chosen.items():
                        metric.add_metric([name], getattr(figures, field))
                    yield metric
