"""No memory, at each moment: a call that raises MemoryError has changed nothing.

Each call is made again and again on caches of the same content, while its first, second, third ... allocation
fails, until one is reached that it does not make. Memory of the arena and of arrays is another matter: numpy
and the system are asked before anything is changed.
"""

from __future__ import annotations

import operator
import sysconfig
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from slabcache._structures import without_memory

from slabcache import SlabCache
from slabcache.behind.core import WriteBehindCore

RECORD = [("seen", "u8"), ("mentions", "u4")]
RECORDS = {"record": RECORD, "padded": np.dtype([("seen", ">u8"), ("mentions", "u4")], align=True)}
SCALARS = {"u8": 2**40, "i8": -(2**40), "f8": 0.5, "S40": b"x" * 30, "?": True, ">i8": -(2**40)}
KEYS = [("user", "u8"), ("name", "S20")]
CAPACITY = 4
MANY = 700  # evicted entries, whose number is none of the ints that are always there


def fill(cache: Any, value: Any) -> None:
    for number in range(CAPACITY):
        cache[number + 2**40] = value


KEY, ABSENT = 1 + 2**40, 99 + 2**40

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "get": lambda cache, value: cache.get(KEY),
    "[]": lambda cache, value: cache[KEY],
    "peek": lambda cache, value: cache.peek(KEY),
    "in": lambda cache, value: KEY in cache,
    "touch": lambda cache, value: cache.touch(KEY),
    "[]=": lambda cache, value: cache.__setitem__(KEY, value),
    "evicting []=": lambda cache, value: cache.__setitem__(ABSENT, value),
    "del": lambda cache, value: cache.__delitem__(KEY),
    "pop": lambda cache, value: cache.pop(KEY),
    "popitem": lambda cache, value: cache.popitem(),
    "setdefault": lambda cache, value: cache.setdefault(KEY, value),
    "evicting setdefault": lambda cache, value: cache.setdefault(ABSENT, value),
    "clear": lambda cache, value: cache.clear(),
    "resize": lambda cache, value: cache.resize(2),
    "get_many": lambda cache, value: cache.get_many(HELD),
    "peek_many": lambda cache, value: cache.peek_many(HELD),
    "contains_many": lambda cache, value: cache.contains_many(HELD),
    "touch_many": lambda cache, value: cache.touch_many(HELD),
    "delete_many": lambda cache, value: cache.delete_many(HELD),
    "put_many": lambda cache, value: cache.put_many(HELD, cache.peek_many(HELD)[0]),
    "snapshot": lambda cache, value: cache.snapshot(),
    "list": lambda cache, value: list(cache.items()),
}
NUMBERS: dict[str, Callable[[Any, str | None], Any]] = {
    "increment": lambda cache, field: cache.increment(KEY, field),
    "increment_many": lambda cache, field: cache.increment_many(HELD, field),
}
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    del NUMBERS["increment_many"]
HELD = np.array([3, 99, 1, 3], "u8") + np.uint64(2**40)
HELD.flags.writeable = False


# What numpy makes of a lack of memory; nothing is changed by that either. `ndarray.ctypes` builds a tuple of
# what could not be allocated, and `np.dtype` takes any error of its own for a type that it does not know.
# Left out are fields of datetime64, as encoding one reads through a null pointer inside numpy; `copy`, which
# changes nothing but makes a cache, by `np.dtype`; and, without a GIL, `increment_many`. There `np.dtype` and
# `np.asarray` end the process by themselves.
UPSTREAM = ("NULL object passed to Py_BuildValue", "StringDType is not currently supported")


def state(cache: Any) -> Any:
    keys, values = cache.snapshot()
    return keys.tolist(), values.tolist(), cache._stats()


def check(make: Callable[[], Any], call: Callable[[Any], Any]) -> int:
    """How many allocations the call makes."""
    untouched, done = make(), make()
    call(done)
    before, after = state(untouched), state(done)
    number = 0
    reached = True
    while reached:
        number += 1
        cache = make()
        error, reached = without_memory(number, call, cache)
        known = isinstance(error, MemoryError) or str(error).startswith(UPSTREAM)
        assert error is None or known, (number, error)
        assert state(cache) == (after if error is None else before), (number, error)
        cache._check()
    return number - 1


def maker(spec: Any, value: Any, on_evict: Any) -> Callable[[], Any]:
    def make() -> Any:
        cache = SlabCache(CAPACITY, "u8", spec, on_evict=on_evict)
        fill(cache, value)
        return cache

    return make


@pytest.mark.parametrize("on_evict", [None, operator.is_])  # which itself needs no memory
@pytest.mark.parametrize("spec", [*SCALARS, *RECORDS])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_finds_no_memory_changes_nothing(name: str, spec: str, on_evict: Any) -> None:
    value = (2**40, 5) if spec in RECORDS else SCALARS[spec]
    dtype = RECORDS.get(spec, spec)
    check(maker(dtype, value, on_evict), lambda cache: CALLS[name](cache, value))


@pytest.mark.parametrize("spec", ["u8", "i8", ">i8", "f8", *RECORDS])
@pytest.mark.parametrize("name", NUMBERS)
def test_an_increment_that_finds_no_memory_changes_nothing(name: str, spec: str) -> None:
    field = "seen" if spec in RECORDS else None
    value = (2**40, 5) if spec in RECORDS else SCALARS[spec]
    dtype = RECORDS.get(spec, spec)
    reached = check(maker(dtype, value, None), lambda cache: NUMBERS[name](cache, field))
    assert reached > 0 or spec == "f8"  # the interpreter keeps floats that are free


def test_update_fields_that_finds_no_memory_changes_nothing() -> None:
    make = maker(RECORD, (2**40, 5), None)
    assert check(make, lambda cache: cache.update_fields(KEY, seen=2**50, mentions=2**20)) > 0


def test_keys_of_several_fields() -> None:
    def make() -> Any:
        cache = SlabCache(CAPACITY, KEYS, "u8")
        for number in range(CAPACITY):
            cache[number, b"name"] = 2**40
        return cache

    for call in (SlabCache.popitem, list, lambda cache: cache.pop((2, b"name"))):
        assert check(make, call) > 0


@pytest.mark.parametrize("spec", RECORDS)
@pytest.mark.parametrize("return_evicted", [False, True])
@pytest.mark.parametrize("on_evict", [None, operator.is_])
def test_a_batch_that_evicts_many(spec: str, return_evicted: bool, on_evict: Any) -> None:
    keys = np.arange(MANY + CAPACITY, dtype="u8")
    values = np.zeros(MANY + CAPACITY, RECORDS[spec])
    values.flags.writeable = False

    def make() -> Any:
        return SlabCache(CAPACITY, "u8", RECORDS[spec], on_evict=on_evict)

    packed = make()
    packed.put_many([1], [(1, 2)])
    call = lambda cache: cache.put_many(keys, values, return_evicted=return_evicted)  # noqa: E731
    assert call(make()) == MANY or return_evicted
    assert check(make, call) > 0


def test_a_resize_that_evicts_many() -> None:
    def make() -> Any:
        cache = SlabCache(MANY + CAPACITY, "u8", "u4")
        cache.put_many(range(MANY + CAPACITY), range(MANY + CAPACITY))
        return cache

    assert make().resize(CAPACITY) == MANY
    assert check(make, lambda cache: cache.resize(CAPACITY)) > 0


class Core(WriteBehindCore):
    """Only what is in memory."""

    def __init__(self, spec: Any, value: Any) -> None:
        super().__init__(CAPACITY, CAPACITY, "u8", spec, None)
        for number in range(CAPACITY):
            assert self._attempt_put(number + 2**40, value)


def unsaved(core: Any) -> Any:
    return *state(core), core._unsaved()[:3]


@pytest.mark.parametrize("spec", [*SCALARS, "record"])
def test_a_cache_before_a_store_that_finds_no_memory_changes_nothing(spec: str) -> None:
    value = (2**40, 5) if spec == "record" else SCALARS[spec]
    dtype = RECORD if spec == "record" else spec
    keys = HELD[:1]
    calls: list[Callable[[Any], Any]] = [
        lambda core: core._attempt(KEY, True, True),
        lambda core: core._attempt(KEY, False, False),
        lambda core: core._attempt(ABSENT, True, True),
        lambda core: core._attempt_put(KEY, value),
        lambda core: core._attempt_put(ABSENT, value),
        lambda core: core._delete_least_recent(),
        lambda core: core._put(keys, core.snapshot()[1][:1], None, True),
        lambda core: core._put(keys, core.snapshot()[1][:1], None, False),
    ]
    if spec in ("u8", "i8", "f8", "record"):
        field = "seen" if spec == "record" else None
        calls.append(lambda core: core._attempt_increment(KEY, field, 1))
    for call in calls:
        check(lambda: Core(dtype, value), call)
