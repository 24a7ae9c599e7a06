"""The codec behind the caches, called by hand: what is wrong raises, and nothing crashes."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import slabcache.codec.record as codec
from slabcache import SlabCache
from slabcache.codec.record import Schema
from support.scripts import run

RECORD = [("a", "u1"), ("s", "S3"), ("t", "M8[s]"), ("g", "f4", (2,))]

STRANGE: list[Any] = [
    None, 0, -1, 2**70, 1.5, "a", b"", b"abc", (), (1, 2), [], [1], [(1, 2)], {}, {"a": 1}, {1: 1}, object(),
    np.zeros(0, "u1"), np.zeros(3, "u1"), np.zeros((2, 2)), np.zeros(2, "V40"), np.array(5), np.array(None),
    np.ma.masked, int, Schema,
]  # fmt: skip

SCHEMAS: list[Callable[[], Schema]] = [
    lambda: Schema.__new__(Schema),
    lambda: Schema("u8", "key"),
    lambda: Schema("V40", "value"),
    lambda: Schema(RECORD, "value"),
    lambda: Schema(("f4", (2,)), "value"),
    lambda: SlabCache.__new__(SlabCache)._key_schema,
]


def by_hand(schema: Schema, most: int) -> None:
    """Call each method with up to `most` strange arguments: a result or an exception."""
    for name in dir(Schema):
        method = getattr(schema, name)
        if name.startswith("__") or not callable(method):
            continue
        for count in range(most + 1):
            for arguments in itertools.product(STRANGE, repeat=count):
                with suppress(Exception):
                    method(*arguments)


@pytest.mark.parametrize("make", SCHEMAS)
def test_private_methods_by_hand(make: Callable[[], Schema]) -> None:
    schema = make()
    by_hand(schema, 2)
    assert repr(schema)


def test_rows_that_are_not_packed_rows() -> None:
    schema = Schema(RECORD, "value")
    rows = schema.encode_rows([(1, b"a", np.datetime64(5, "s"), [1, 2])])
    assert len(schema.decode_rows(rows)) == 1
    for wrong in (np.zeros(1000, "u1"), np.zeros((2, 2), rows.dtype), np.zeros(5, rows.dtype)["a"]):
        with pytest.raises(TypeError, match="packed"):
            schema.decode_rows(wrong)


@pytest.mark.parametrize("name", ["encode_rows", "decode_rows", "number_position_of", "label", "deltas_of"])
def test_a_schema_made_without_arguments_refuses_everything(name: str) -> None:
    schema = Schema.__new__(Schema)
    arguments = {"label": (0,), "number_position_of": (None,), "deltas_of": (0, [1])}
    with pytest.raises((RuntimeError, IndexError)):
        getattr(schema, name)(*arguments.get(name, ([],)))


def test_init_by_hand_changes_nothing() -> None:
    cache = SlabCache(2, "u8", RECORD)
    schema = cache._value_schema
    schema.__init__("V60000", "value")  # type: ignore[misc]
    Schema.__init__(schema, "u1", "key")  # type: ignore[misc]
    assert (schema.size, schema.role, len(schema.dtypes)) == (20, "value", 4)
    cache[1] = (1, b"a", np.datetime64(5, "s"), [1, 2])
    assert cache[1].s == b"a"


def test_init_again_from_the_hash_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a schema is made, the code of a name finds it, and makes it something else."""

    found: list[Schema] = []

    class Name(str):
        def __hash__(self) -> int:
            import gc

            for other in gc.get_objects():
                if type(other) is Schema and other.dtype is not None and other.size == 777:
                    other.__init__("u1", "value")  # type: ignore[misc]
                    found.append(other)
                    by_hand(other, 1)
            return str.__hash__(self)

    real = codec.describe

    def describe(spec: Any, role: Any) -> Any:
        description = real(spec, role)
        fields = tuple(field._replace(name=Name(field.name)) for field in description.fields)
        return description._replace(fields=fields)

    monkeypatch.setattr(codec, "describe", describe)
    schema = Schema([("a", "V776"), ("b", "u1")], "value")
    assert found[0] is schema
    assert (schema.size, schema.names) == (777, ("a", "b"))
    assert schema.decode_rows(schema.encode_rows([(bytes(776), 7)]))[0].b == 7


class Clearing:
    """An integer whose conversion empties the list that it is in, and fills it again with something else."""

    def __init__(self, items: list[Any], more: int) -> None:
        self.items = items
        self.more = more

    def __index__(self) -> int:
        self.items.clear()
        self.items.extend([2**100] * self.more)
        return 1

    def __float__(self) -> float:
        return float(self.__index__())


@pytest.mark.parametrize("more", [0, 1, 5000])
def test_a_list_that_changes_while_it_is_encoded(more: int) -> None:
    """The items are those that it had."""
    numbers, reals = Schema("u8", "value"), Schema("f8", "value")
    items: list[Any] = [2, 3]
    items += [Clearing(items, more), 4, 5]
    assert numbers.encode_rows(items).tolist() == [2, 3, 1, 4, 5]
    for schema in (numbers, reals):
        items[:] = [2, 3, Clearing(items, more), 4, 5]
        deltas = schema.deltas_of(0, items)
        assert len(deltas) == 5
        assert (deltas["magnitude"] + deltas["real"]).tolist()[:2] == [2, 3]
    grid = Schema(("u8", (5,)), "value")
    items[:] = [2, 3, Clearing(items, more), 4, 5]
    assert grid.encode_rows([items])["value"].tolist() == [[2, 3, 1, 4, 5]]


# Interpreters that were built without their test modules, as free-threaded ones here, have nothing that makes
# an allocation fail.
if importlib.util.find_spec("_testcapi"):

    def test_lists_that_cannot_grow() -> None:
        """Cython 3.3.1 drops an item twice where a comprehension has no memory for it: there must be none."""
        run(
            """
            import sys
            import numpy as np
            from _testcapi import remove_mem_hooks, set_nomemory
            from slabcache import SlabCache

            cache = SlabCache(4, "u8", [(f"f{at}", "V9") for at in range(40)])
            row = tuple(b"%09d" % at for at in range(40))
            cache[1] = row
            record = cache[1]
            schema = cache._value_schema
            rows = schema.encode_rows([row] * 40)

            def attempt(call, at):
                try:
                    set_nomemory(at, at + 1)
                    call()
                except MemoryError:
                    return True
                finally:
                    remove_mem_hooks()
                return False

            for call in (
                lambda: hash(record),
                lambda: repr(record),
                lambda: schema.decode_rows(rows),
                lambda: schema.encode_rows([row] * 40),
                lambda: record == row,
                lambda: record._asdict(),
            ):
                call()
                failed = [attempt(call, at) for at in range(1, 400)]
                assert any(failed) and not all(failed)
                assert record == row and len(schema.decode_rows(rows)) == 40
            """
        )
