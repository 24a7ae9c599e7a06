"""What is scraped is what `stats()` says."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from slabcache import SlabCache, WriteBehindCache
from slabcache.prometheus import CacheCollector
from support.faulty_store import FaultyStore


def test_figures_of_both_kinds_of_cache() -> None:
    plain = SlabCache(4, "u8", "u4")
    plain[1] = 1
    store = FaultyStore()
    states = WriteBehindCache(4, store, flush_interval=1000)
    states.put_many([1, 2], [1, 2])
    states.flush()
    store.gate.clear()
    states[3] = 3  # it may count as written before the flush, whose clock is finer
    registry = CollectorRegistry()
    registry.register(CacheCollector(plain=plain, states=states))

    def sample(name: str, cache: str) -> float | None:
        return registry.get_sample_value(f"slabcache_{name}", {"cache": cache})

    assert sample("insertions_total", "plain") == 1
    assert sample("insertions_total", "states") == 3
    assert sample("capacity", "plain") == 4
    assert sample("flushed_rows_total", "states") == 2
    assert sample("dirty", "states") == 1
    assert sample("oldest_dirty_age_seconds", "states") >= 0
    assert sample("dirty", "plain") is None
    store.gate.set()
    states.close()
    assert sample("size", "states") is None
    assert sample("size", "plain") == 1


def test_what_is_no_cache_is_named() -> None:
    with pytest.raises(TypeError, match="states must be a cache, not int"):
        CacheCollector(states=3)


def test_any_name_will_do() -> None:
    cache = SlabCache(4, "u8", "u4")
    registry = CollectorRegistry()
    registry.register(CacheCollector(**{"self": cache, "caches": cache, "a b": cache}))
    for name in ("self", "caches", "a b"):
        assert registry.get_sample_value("slabcache_capacity", {"cache": name}) == 4
