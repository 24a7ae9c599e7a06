"""Every call on a cache that is always full: a call that has to wait does what it does otherwise."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slabcache import WriteBehindCache
from support.faulty_store import FaultyStore

RECORD = [("n", "u4"), ("name", "S4"), ("at", "M8[s]"), ("pair", "i2", (2,))]
AT = np.datetime64(1, "s")

#: Of each dtype: the key and value dtypes, a value, another one, and the field that can be incremented.
KINDS: dict[str, tuple[Any, Any, Any, Any, str | None]] = {
    "scalar": ("u8", "i8", 5, 7, None),
    "subarray": ("u8", ("i4", (2,)), [1, 2], [3, 4], None),
    "record": ("u8", RECORD, (1, b"a", AT, [1, 2]), (2, b"b", AT, [3, 4]), "n"),
    "padded": ("<u4", np.dtype([("n", "u1"), ("x", "f8")], align=True), (1, 0.5), (2, 1.5), "n"),
    "bytes": ("S5", "V3", b"abc", b"xyz", None),
}


def key_of(kind: str, number: int) -> Any:
    return b"k%d" % number if kind == "bytes" else number


def plain(value: Any) -> Any:
    """For comparison: arrays and records as lists and tuples."""
    if isinstance(value, (np.ndarray, np.void)):
        return plain(value.tolist())
    if hasattr(value, "_fields"):
        value = tuple(value)
    return type(value)(plain(item) for item in value) if isinstance(value, (tuple, list)) else value


def done(_: object) -> str:
    """For calls whose result depends on the capacity, by definition."""
    return "done"


class Slow(FaultyStore):
    """It keeps its rows as they are packed, and saves none while its gate is closed."""

    def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base, shape = self.value_dtype.subdtype or (self.value_dtype, ())
        values = np.zeros((len(keys), *shape), base)
        found = np.zeros(len(keys), bool)
        for place, key in enumerate(keys.tolist()):
            if key in self.rows:
                values[place] = self.rows[key]
                found[place] = True
        return values, found

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.gate.wait()
        self.rows.update(zip(keys.tolist(), values.copy(), strict=True))


def calls(kind: str) -> dict[str, Callable[[WriteBehindCache], Any]]:
    _, _, _, second, field = KINDS[kind]
    one, two, three = (key_of(kind, number) for number in (1, 2, 3))
    by_field = {} if field is None else {"field": field}
    numeric = field is not None or kind == "scalar"
    every: dict[str, Callable[[WriteBehindCache], Any]] = {
        "get": lambda cache: cache.get(one),
        "getitem": lambda cache: cache[one],
        "peek": lambda cache: cache.peek(one),
        "contains": lambda cache: (one in cache, three in cache),
        "touch": lambda cache: (cache.touch(one), cache.touch(three)),
        "get_many": lambda cache: cache.get_many([one, three]),
        "setitem": lambda cache: cache.__setitem__(three, second),
        "setdefault": lambda cache: (cache.setdefault(three, second), cache.setdefault(one, second)),
        "pop": lambda cache: (cache.pop(one), cache.pop(three, None)),
        "delitem": lambda cache: cache.__delitem__(one),
        "put_many": lambda cache: done(cache.put_many([three, one], [second, second])),
        "put_many_evicted": lambda cache: done(cache.put_many([three], [second], return_evicted=True)),
        "delete_many": lambda cache: cache.delete_many([one, three, two]),
        "update": lambda cache: cache.update({three: second, one: second}),
        "aget": lambda cache: asyncio.run(run(cache.aget, one)),
        "aset": lambda cache: asyncio.run(run(cache.aset, three, second)),
        "aput_many": lambda cache: done(asyncio.run(run(cache.aput_many, [three], [second]))),
    }
    if numeric:
        every |= {
            "increment": lambda cache: cache.increment(one, **by_field),
            "increment_many": lambda cache: cache.increment_many([one, three], by=[2, 3], **by_field),
            "aincrement": lambda cache: asyncio.run(run(cache.aincrement, one, **by_field)),
            "aincrement_many": lambda cache: asyncio.run(
                run(cache.aincrement_many, [one, three], **by_field)
            ),
        }
    if field is not None:
        every["update_fields"] = lambda cache: cache.update_fields(one, **by_field and {field: 9})
    return every


async def run(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    assert inspect.iscoroutinefunction(call)
    return await call(*arguments, **named)


@pytest.mark.parametrize("name", sorted({name for kind in KINDS for name in calls(kind)}))
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_waits_for_room_does_what_it_does_otherwise(kind: str, name: str) -> None:
    call = calls(kind).get(name)
    if call is None:
        return  # there is nothing to increment
    key, value, first, second, _ = KINDS[kind]
    results = []
    for capacity, max_pending in ((100, 100), (1, 1)):
        store = Slow(key, value)
        base = store.value_dtype.base
        for number in (1, 2):
            rows = np.zeros((1, *store.value_dtype.shape), base)
            rows[0] = tuple(first) if store.value_dtype.names else first
            store.rows[key_of(kind, number)] = rows[0]
        cache = WriteBehindCache(capacity, store, flush_interval=1000.0, max_pending=max_pending)
        store.gate.clear()
        for number in (10, 11):
            cache[key_of(kind, number)] = second  # unsaved: capacity 1 and max_pending 1 leave no room
        assert cache.stats().dirty == 2
        opening = threading.Timer(0.01, store.gate.set)  # by then a call that needs room waits for it
        opening.start()
        results.append([plain(call(cache))])
        opening.join()
        cache.close()
        results[-1].append({key: plain(row) for key, row in store.rows.items()})
    assert results[0] == results[1]
