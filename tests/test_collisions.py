"""Collisions and flooding: keys that meet in a bucket, key sets that an attacker would choose."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slabcache import SlabCache
from support.model import ModelCache, canon_items

PAIR = np.dtype([("user", "u8"), ("channel", "u8")])


@pytest.mark.parametrize("capacity", [1, 2, 5, 11, 12, 13, 24, 40])
def test_thousands_of_keys_through_a_few_buckets(capacity: int) -> None:
    """So many keys in so few buckets share tags too: a match of tags is not yet a match of keys."""
    rng = np.random.default_rng(capacity)
    every = np.arange(5000, dtype="u8") * 2**40
    cache, model = SlabCache(capacity, "u8", "u4"), ModelCache(capacity, "u4")
    for _ in range(40):
        keys = rng.choice(every, 40)
        cache.put_many(keys, np.arange(40))
        model.put_many(keys.tolist(), range(40))
        gone = rng.choice(keys, 5)
        assert cache.delete_many(gone).tolist() == [model.delete(key) for key in gone.tolist()]
        cache._check()
        present = every[cache.contains_many(every)].tolist()
        assert sorted(present) == sorted(model.data)
        assert canon_items(cache.items()) == model.items()


@pytest.mark.parametrize(
    "dtype", ["S8", "S9", "S255", "V16", "V17", "V33", "u8", [("a", "u8"), ("b", "V23")]]
)
def test_keys_that_differ_in_one_bit(dtype: Any) -> None:
    """Each bit of a key counts, in the hash's blocks and in their ragged end."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    keys = np.full((size * 8 + 1, size), 0x41, "u1")
    for bit in range(size * 8):
        keys[bit + 1, bit // 8] ^= 1 << bit % 8
    rows = np.ascontiguousarray(keys).reshape(-1).view(dtype)
    count = len(rows)
    cache = SlabCache(count, dtype, "u4")
    assert cache.put_many(rows, np.arange(count)) == 0
    assert len(cache) == count
    values, found = cache.get_many(rows[::-1])
    assert found.all()
    assert values.tolist() == list(range(count))[::-1]
    cache.delete_many(rows[::2])
    assert cache.contains_many(rows).tolist() == [at % 2 == 1 for at in range(count)]
    cache._check()


def test_full_tables_of_every_small_size() -> None:
    """At each capacity the last free place in the table is used, emptied and used again."""
    for capacity in range(1, 80):
        cache = SlabCache(capacity, "u4", "u4")
        for round_ in range(3):
            keys = np.arange(capacity) + round_ * 1000
            cache.put_many(keys, keys)
            assert cache.contains_many(keys).all()
            assert not cache.contains_many(keys + 100_000).any()
            cache._check()
            if round_ == 1:
                assert cache.delete_many(keys).all()
                cache._check()


# -- flooding -----------------------------------------------------------------------------------

COUNT = 20_000
ROUNDS = 9
BOUND = 5.0


def bit_patterns(count: int) -> np.ndarray:
    """Numbers with few bits set, all over the word."""
    numbers = {0}
    ones = [1 << at for at in range(64)]
    for a in ones:
        for b in ones:
            for c in ones[::2]:
                numbers.add(a | b | c)
    return np.array(sorted(numbers)[:: max(1, len(numbers) // count)][:count], "u8")


AT = np.arange(COUNT, dtype="u8")
KEY_SETS: dict[str, np.ndarray] = {
    "sequential": AT,
    "multiples of 2**12": AT << np.uint64(12),
    "multiples of 2**32": AT << np.uint64(32),
    "high bits only": AT << np.uint64(47),
    "byte-swapped": AT.byteswap(),
    "negative": ~AT,
    "multiples of 0x9E3779B97F4A7C15": AT * np.uint64(0x9E3779B97F4A7C15),
    "its inverse": AT * np.uint64(0xF1DE83E19937733D),
    "multiples of 2**61 - 1": AT * np.uint64(2**61 - 1),
    "squares": AT * AT,
    "times in nanoseconds": AT * np.uint64(10**9) + np.uint64(1_700_000_000 * 10**9),
    "snowflakes": (AT << np.uint64(22)) + np.uint64(175928847299117063),
    "sparse bits": bit_patterns(COUNT),
}


def in_fields(numbers: np.ndarray, way: str) -> np.ndarray:
    """The numbers as pairs: in one field, in both alike, or in both as opposites."""
    keys = np.zeros(len(numbers), PAIR)
    if way != "second":
        keys["user"] = numbers
    if way in ("second", "both"):
        keys["channel"] = numbers
    if way == "opposite":
        keys["channel"] = ~numbers
    return keys


def slowdown(
    build: Callable[[np.ndarray], Any],
    look: Callable[[Any, np.ndarray], Any],
    chosen: np.ndarray,
    ordinary: np.ndarray,
) -> float:
    """How much longer looking up the chosen keys takes than the ordinary: ratio of the best rounds, in time
    of the processor. Other programs lengthen some rounds; a flood would lengthen all."""
    subjects = [(build(keys), keys) for keys in (chosen, ordinary)]
    times: list[list[int]] = [[], []]
    for _ in range(ROUNDS):
        for (subject, keys), taken in zip(subjects, times, strict=True):
            start = time.thread_time_ns()
            look(subject, keys)
            taken.append(time.thread_time_ns() - start)
    return min(times[0]) / min(times[1])


def build_cache(keys: np.ndarray) -> SlabCache:
    cache = SlabCache(len(keys), keys.dtype, "u4")
    cache.put_many(keys, np.arange(len(keys)))
    assert len(cache) == len(keys)
    return cache


def look_in_cache(cache: SlabCache, keys: np.ndarray) -> None:
    assert cache.contains_many(keys).all()


def ordinary_keys(dtype: np.dtype, count: int) -> np.ndarray:
    """Random words: even a poor hash spreads them."""
    words = np.random.default_rng(5).integers(0, 2**64, count, "u8")
    return words if dtype == np.dtype("u8") else in_fields(words, "both")


def shuffled(keys: np.ndarray) -> np.ndarray:
    return np.random.default_rng(6).permutation(keys)


@pytest.mark.parametrize("name", sorted(KEY_SETS))
def test_chosen_integers_are_no_slower(name: str) -> None:
    chosen = shuffled(KEY_SETS[name])
    ordinary = ordinary_keys(chosen.dtype, len(chosen))
    assert slowdown(build_cache, look_in_cache, chosen, ordinary) < BOUND


@pytest.mark.parametrize("way", ["user", "second", "both", "opposite"])
@pytest.mark.parametrize("name", ["sequential", "high bits only", "sparse bits", "byte-swapped"])
def test_chosen_pairs_are_no_slower(name: str, way: str) -> None:
    chosen = shuffled(in_fields(KEY_SETS[name], way))
    ordinary = ordinary_keys(PAIR, len(chosen))
    assert slowdown(build_cache, look_in_cache, chosen, ordinary) < BOUND


@pytest.mark.parametrize("position", [0, 8, 16, 52])
def test_chosen_bytes_are_no_slower(position: int) -> None:
    """Long keys that differ in eight bytes only, wherever those lie."""
    keys = np.zeros((COUNT, 60), "u1")
    keys[:, position : position + 8] = AT.view("u1").reshape(COUNT, 8)
    chosen = shuffled(keys.reshape(-1).view("V60"))
    noise = np.frombuffer(np.random.default_rng(8).bytes(COUNT * 60), "V60")
    assert slowdown(build_cache, look_in_cache, chosen, noise) < BOUND


def test_the_measure_sees_a_flooded_table() -> None:
    """A dict hashes integers to themselves modulo 2**61 - 1: its multiples all collide."""

    def build(keys: np.ndarray) -> dict[int, None]:
        return dict.fromkeys(keys.astype(object) * (2**61 - 1) if keys[0] else keys.tolist())

    def look(table: dict[int, None], keys: np.ndarray) -> None:
        assert all(key in table for key in list(table))

    chosen, ordinary = np.arange(1, 1500), np.arange(1499)
    assert slowdown(build, look, chosen, ordinary) > BOUND
