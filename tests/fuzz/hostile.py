"""Arguments that a call must refuse, with the exceptions that it must raise, and nothing changed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fuzz.cache import Op, Run
    from fuzz.codec import Codec

BAD = ("key", "key", "value", "value", "batch", "batch", "call")

Refused = tuple[Callable[[], Any], tuple[type[BaseException], ...]]


class RaisedError(Exception):
    """By code of the caller that a call runs."""


class Bomb:
    """Whatever is done with it raises."""

    def _raise(self, *_: object) -> Any:
        raise RaisedError("bomb")

    __index__ = __float__ = __iter__ = __array__ = __bool__ = __eq__ = __getattr__ = _raise
    __hash__ = None  # type: ignore[assignment]


def bad_fields(dtype: np.dtype, role: str) -> list[tuple[Any, tuple[type[BaseException], ...]]]:
    """Items that a field does not take."""
    wrong: tuple[type[BaseException], ...] = (TypeError,)
    bad: list[tuple[Any, Any]] = [(None, wrong), ("text", wrong), ({}, (TypeError, ValueError)), (1j, wrong)]
    if dtype.subdtype is not None:
        return [(item, (TypeError, ValueError)) for item in (None, "text", [], [[[[1]]]], np.zeros((9, 9)))]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        bad += [(int(limits.max) + 1, (OverflowError,)), (int(limits.min) - 1, (OverflowError,))]
        bad += [(10**5000, (OverflowError,)), (1.0, wrong), (b"1", wrong), (np.float64(1), wrong)]
        bad += [(True, wrong), (np.True_, wrong)] if role == "key" else []
    elif dtype.kind == "f":
        bad += [(10**400, (OverflowError,)), (b"1", wrong), ([1.0], wrong)]
        if dtype.itemsize < 8:
            bad.append((1e300, (OverflowError,)))
    elif dtype.kind == "b":
        bad += [(1, wrong), (0.0, wrong), (b"1", wrong)]
    elif dtype.kind in "SV":
        bad += [(b"x" * (dtype.itemsize + 1), (ValueError,)), (5, wrong)]
        if dtype.kind == "S":
            bad.append((b"\0", (ValueError,)))
        if dtype.kind == "V":
            bad.append((b"x" * (dtype.itemsize - 1), (ValueError,)))
    else:
        bad += [(5, wrong), (1.5, wrong), (b"1", wrong)]
        if dtype.kind == "m" and np.datetime_data(dtype)[0] in ("us", "ns"):
            bad += [
                (datetime.timedelta(days=days), (ValueError, OverflowError))
                for days in (2 * 10**8, -9 * 10**8)
            ]
    return bad


def _bad_row(codec: Codec, row: bytes, pick: int) -> tuple[Any, tuple[type[BaseException], ...]]:
    """An item that a scalar call refuses."""
    at = pick % len(codec.fields)
    choices = bad_fields(codec.fields[at][1], codec.role)
    item, errors = choices[pick // 7 % len(choices)]
    if not codec.names:
        return item, errors
    good = list(codec.item(row))
    shapes: list[tuple[Any, tuple[type[BaseException], ...]]] = [
        (tuple(good[:-1]), (TypeError,)),
        ((*good, 0), (TypeError,)),
        (good, (TypeError,)),
        (None, (TypeError,)),
    ]
    if codec.role == "value":
        shapes += [
            ({}, (ValueError,)),
            ({**dict(zip(codec.names, good, strict=True)), "z": 1}, (ValueError,)),
        ]
    if pick % 3 == 0:
        return shapes[pick // 3 % len(shapes)]
    good[at] = item
    return tuple(good), errors


def bad_item(run: Run, op: Op, pick: int) -> Refused | None:
    """A scalar call, or a batch of items, with one that is wrong."""
    cache, key, value = run.cache, run.keys.item(op.rows[0]), run.values.item(op.values[0])
    if op.options["how"] == "key":
        wrong, errors = _bad_row(run.keys, op.rows[0], pick)
        calls = [
            lambda: cache[wrong], lambda: cache.get(wrong), lambda: wrong in cache, lambda: cache.pop(wrong),
            lambda: cache.__setitem__(wrong, value), lambda: cache.setdefault(wrong, value),
            lambda: cache.touch(wrong), lambda: cache.peek(wrong), lambda: cache.get_many([key, wrong]),
            lambda: cache.put_many([key, wrong], [value, value]), lambda: cache.delete_many([key, wrong]),
            lambda: cache.touch_many(iter([key, wrong])), lambda: cache.contains_many((key, wrong)),
            lambda: cache.update_fields(wrong), lambda: cache.increment(wrong),
            lambda: cache.increment_many([key, wrong]),
        ]  # fmt: skip
        chosen = calls[pick % len(calls)]
        if pick % len(calls) >= 13:  # the value may have no fields, or no number
            errors = (*errors, TypeError, ValueError)
        return chosen, errors
    if op.options["how"] == "value":
        wrong, errors = _bad_row(run.values, op.values[0], pick)
        calls = [
            lambda: cache.__setitem__(key, wrong),
            lambda: cache.put_many([key, key], [value, wrong]),
            lambda: cache.update([(key, wrong)]),
        ]
        if not cache.peek_many([key])[1][0]:
            calls.append(lambda: _as_if_uncounted(run, lambda: cache.setdefault(key, wrong)))
        return calls[pick % len(calls)], errors
    return _bad_call(run, op, pick)


def _as_if_uncounted(run: Run, call: Callable[[], Any]) -> Any:
    """A default that is refused: whether the look-up was counted is not said."""
    before = run.cache.stats().misses
    try:
        return call()
    finally:
        run.model.misses += run.cache.stats().misses - before


def _bad_call(run: Run, op: Op, pick: int) -> Refused:
    cache, key = run.cache, run.keys.item(op.rows[0])
    wrong = (TypeError, ValueError)
    calls: list[Refused] = [
        (lambda: cache.resize(0), (ValueError,)),
        (lambda: cache.resize(2**32), (ValueError,)),
        (lambda: cache.resize(True), (TypeError,)),
        (lambda: cache.resize("1"), (TypeError,)),
        (lambda: cache.increment(key, "nope"), wrong),
        (lambda: cache.increment(key, 5), wrong),
        (lambda: cache.increment(key, by="1"), wrong),
        (lambda: cache.increment(key, by=None), wrong),
        (lambda: cache.update_fields(key, nope=1), wrong),
        (lambda: cache.get_many(Bomb()), (RaisedError, TypeError)),
        (lambda: cache[Bomb()], (RaisedError, TypeError)),
        (lambda: cache.__setitem__(key, Bomb()), (RaisedError, TypeError)),
        (lambda: cache.update([1]), wrong),
        (lambda: cache.update(5), wrong),
        (lambda: cache.__init__(5, "u8", "u8"), (RuntimeError,)),
        (lambda: cache.get(), (TypeError,)),
        (lambda: hash(cache), (TypeError,)),
    ]
    return calls[pick % len(calls)]


def bad_batch(run: Run, op: Op, pick: int) -> Refused | None:
    """A batch with an array that is wrong."""
    cache = run.cache
    keys, values = run.keys.array(op.rows), run.values.array(op.values)
    wrong = (TypeError, ValueError)
    masked = np.ma.MaskedArray(keys)
    calls: list[Refused] = [
        (lambda: cache.put_many(keys, values[:1]), (ValueError,)),
        (lambda: cache.put_many(keys[:1], values), (ValueError,)),
        (lambda: cache.get_many(masked), (TypeError,)),
        (lambda: cache.get_many(np.zeros(2, "f8")), wrong),
        (lambda: cache.get_many(np.zeros(2, "?")), wrong),
        (lambda: cache.get_many(np.zeros(2, [("nope", "u8")])), (TypeError,)),
        (lambda: cache.get_many(np.zeros((2, 3, 4, 5), "u8")), wrong),
        (lambda: cache.get_many(np.array(["a", "b"])), wrong),
        (lambda: cache.get_many(np.array([None, {}], object)), wrong),
        (lambda: cache.get_many("text"), (TypeError,)),
        (lambda: cache.get_many(5), (TypeError,)),
        (lambda: cache.get_many(keys, out=np.zeros(3, values.dtype)), wrong),
        (lambda: cache.get_many(keys, out=[0, 0]), (TypeError,)),
        (lambda: cache.get_many(keys, out=np.zeros(2, "c16")), (TypeError,)),
        (lambda: cache.get_many(keys, out=_read_only(values)), (ValueError,)),
        (lambda: cache.put_many(keys, np.zeros((2, 2, 2, 2, 2))), wrong),
        (lambda: cache.put_many(keys, np.zeros(2, "c16")), wrong),
        (lambda: cache.put_many(keys, {1: 2, 3: 4}), (TypeError,)),
        (lambda: cache.increment_many(keys, "nope"), wrong),
    ]
    if run.values.numbers:
        name = run.values.fields[run.values.numbers[0]][0] or None
        calls += [
            (lambda: cache.increment_many(keys, name, by=[1]), wrong),
            (lambda: cache.increment_many(keys, name, by=np.zeros(3, "i8")), (ValueError,)),
            (lambda: cache.increment_many(keys, name, by=np.zeros(2, "c16")), (TypeError,)),
            (lambda: cache.increment_many(keys, name, by=[1, None]), (TypeError,)),
            (lambda: cache.increment_many(keys, name, by="11"), (TypeError,)),
        ]
        calls += [
            (
                lambda: cache.increment_many(keys, name, by=np.ma.MaskedArray([1, 2], [0, 1])),
                (TypeError,),
            ),
            (lambda: cache.increment_many(keys, name, by={1, 2}), (TypeError,)),
            (lambda: cache.increment_many(keys, name, by={1: 1, 2: 2}), (TypeError,)),
            (lambda: cache.increment_many(keys, name, by=b"ab"), (TypeError,)),
        ]
    return calls[pick % len(calls)]


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
