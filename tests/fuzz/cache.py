"""The whole call surface of `SlabCache` against the model: results, order, counters, evictions, exceptions.

A case is a pair of types, a capacity, and a list of operations that are drawn beforehand, so that a case
without some of them is a case again. An operation may have inner ones: code of the caller that a call runs
(`__index__` of a key, `__getitem__` of a mapping, `__array__`, an iterator, `on_evict`, a finalizer) carries
them out on the same cache, in the midst of the call. What has happened by then is known: the arguments are
read before a call changes anything, `on_evict` runs after it has. For a finalizer, which may run at any time,
it is seen: the cache is as the model is before the call, or after it.
"""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from fuzz.calls import DEPTH, Case, Op, draw_case
from fuzz.codec import Clearing, Codec, Integer, Items, Keyed, Real, RowModel, lay_out
from fuzz.hostile import RaisedError, bad_batch, bad_item
from slabcache import SlabCache, SumOverflowError
from support.model import AbsentError, WrapsError, canon, canon_items

# ---- running -------------------------------------------------------------------------------------------


class Pending:
    """What a call under way does to the model, and what it returns; at most once."""

    def __init__(self, run: Run, act: Callable[[RowModel], Any]) -> None:
        self.run, self.act, self.is_settled = run, act, False
        self.result: Any = None
        self.error: Exception | None = None
        self.evicted: list[Any] = []  # what on_evict is to be told

    def settle(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            try:
                self.result = self.act(self.run.model)
            except (AbsentError, WrapsError) as error:
                self.error = error
            if self.run.case.on_evict:
                self.evicted = self.run.model.evicted
            self.run.model.evicted = []

    def would_change(self) -> bool:
        if self.is_settled:
            return False
        model = copy.deepcopy(self.run.model)
        before = model.state()
        with suppress(AbsentError, WrapsError):
            self.act(model)
        return model.state() != before


class Run:
    """One case, carried out on a cache and on the model."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.keys, self.values = Codec(case.key, "key"), Codec(case.value, "value")
        self.model = RowModel(case.capacity, self.keys, self.values)
        self.stack: list[Pending] = []  # calls under way
        self.inner: list[list[Op]] = [[]]  # what code of the caller is to do, of each of them
        self.raises: list[str | None] = [None]
        self.in_call = False  # not between calls, where the model may be half-way
        self.quiet = 0  # finalizers change nothing
        self.done = 0  # operations, inner ones as well
        self.broken: BaseException | None = None  # what an inner operation has found
        rng = Random(case.seed)
        with mock.patch("os.urandom", rng.randbytes):  # where a key hashes to is part of the case
            self.cache = SlabCache(
                case.capacity, case.key, case.value, on_evict=self.on_evict if case.on_evict else None
            )

    def __call__(self) -> None:
        threshold = gc.get_threshold()
        if self.case.collects:
            gc.collect()  # so that collections come at the same steps again
            gc.set_threshold(1)
        try:
            for op in self.case.ops:
                self.step(op)
                self.agree()
        except Exception:
            if self.broken is None:
                raise
        finally:
            gc.set_threshold(*threshold)
        if self.broken is not None:
            raise self.broken

    def step(self, op: Op) -> None:
        self.done += 1
        self.inner.append(list(op.inner))
        self.raises.append(op.options.get("raises"))
        if self.case.collects and op.inner:
            Trash(self, 12)
        try:
            getattr(self, "do_" + op.name.replace(" ", "_"))(op)
        finally:
            self.inner.pop()
            self.raises.pop()

    # ---- code of the caller that a call runs -----------------------------------------------------------

    def hook(self) -> None:
        """An argument is being read: nothing has happened yet."""
        self.run_inner()
        if self.raises[-1] == "reading":
            raise RaisedError("reading")

    def run_inner(self) -> None:
        if self.inner[-1] and len(self.stack) < 3 * DEPTH:
            op = self.inner[-1].pop(0)
            in_call, self.in_call = self.in_call, False
            try:
                self.step(op)
                self.agree()
            except BaseException as error:
                self.broken = self.broken or error  # whatever the call makes of it
                raise
            finally:
                self.in_call = in_call

    def on_evict(self, keys: np.ndarray, values: np.ndarray) -> None:
        """The operation has taken place."""
        in_call, self.in_call = self.in_call, False
        self.stack[-1].settle()
        assert keys.dtype == self.keys.dtype
        assert len(keys) == len(values) > 0
        evicted = list(zip(self.keys.rows(keys), self.values.rows(values), strict=True))
        told, self.stack[-1].evicted = self.stack[-1].evicted, []
        assert evicted == told, f"on_evict was told of {evicted}, not {told}"
        self.run_inner()
        self.in_call = in_call
        if self.raises[-1] == "on_evict":
            raise RaisedError("on_evict")

    def finalize(self) -> None:
        """The collector runs, at any time."""
        if not self.in_call or self.quiet:
            self.cache.peek_many(self.keys.array(list(self.model.data)[:1]))
            return
        self.in_call = False
        self.quiet += 1
        try:
            pending = self.stack[-1]
            changes = pending.would_change()
            if changes and self.state() != self.model.state():
                pending.settle()
            assert self.state() == self.model.state(), "in a finalizer"
            if self.inner[-1] and (changes or pending.is_settled):
                self.step(self.inner[-1].pop(0))
                self.agree()
        finally:
            self.quiet -= 1
            self.in_call = True

    # ---- a call ----------------------------------------------------------------------------------------

    def call(self, real: Callable[[], Any], act: Callable[[RowModel], Any]) -> tuple[Any, Any]:
        """Carry a call out on both: what it returned, and what the model did; RaisedError is passed on."""
        pending = Pending(self, act)
        self.stack.append(pending)
        result, error = None, None
        self.in_call = True
        try:
            result = real()
        except (KeyError, OverflowError, RaisedError) as raised:
            error = raised
        finally:
            self.in_call = False
            self.stack.pop()
        if isinstance(error, RaisedError):
            if error.args == ("on_evict",):
                assert pending.is_settled
            else:
                assert not pending.is_settled, "an exception of an argument, after the change"
            return _NOTHING, _NOTHING
        pending.settle()
        assert not pending.evicted, f"on_evict was not told of {pending.evicted}"
        expected = pending.error
        if isinstance(expected, AbsentError):
            assert isinstance(error, KeyError), f"no KeyError, but {result!r} {error!r}"
            return _NOTHING, _NOTHING
        if isinstance(expected, WrapsError):
            assert isinstance(error, OverflowError), f"no OverflowError, but {result!r} {error!r}"
            if isinstance(error, SumOverflowError):
                assert error.row == len(expected.rows), f"row {error.row}, not {len(expected.rows)}"
            return _NOTHING, _NOTHING
        if error is not None:
            raise error
        return result, pending.result

    def same(self, result: Any, expected: Any) -> None:
        if result is _NOTHING:
            return
        assert canon(result) == canon(expected), f"{result!r}, not {expected!r}"

    def value(self, result: Any, row: Any) -> None:
        """A look-up has returned a row."""
        if result is _NOTHING:
            return
        if row is None:
            assert result is None, f"{result!r}, not absent"
            return
        assert canon(result) == self.values.canon(row), f"{result!r}, not {self.values.item(row)!r}"
        if self.values.names and self.done % 16 == 0:
            _probe(result, self.values)

    def key_of(self, op: Op) -> Any:
        return self.keys.item(
            op.rows[0], op.options.get("key_form", "plain"), self.hook if op.inner else None
        )

    def value_of(self, op: Op) -> Any:
        return self.values.item(
            op.values[0], op.options.get("value_form", "plain"), self.hook if op.inner else None
        )

    # ---- one key ---------------------------------------------------------------------------------------

    def do_put(self, op: Op) -> None:
        key, value = self.key_of(op), self.value_of(op)
        self.call(
            lambda: self.cache.__setitem__(key, value), lambda model: model.put(op.rows[0], op.values[0])
        )

    def do_getitem(self, op: Op) -> None:
        key = self.key_of(op)
        self.value(*self.call(lambda: self.cache[key], lambda model: model.get(op.rows[0])))

    def do_get(self, op: Op, name: str = "get") -> None:
        key = self.key_of(op)

        def act(model: RowModel) -> Any:
            try:
                return getattr(model, name)(op.rows[0])
            except AbsentError:
                return None

        self.value(*self.call(lambda: getattr(self.cache, name)(key), act))

    def do_peek(self, op: Op) -> None:
        self.do_get(op, "peek")

    def do_contains(self, op: Op) -> None:
        key = self.key_of(op)
        self.same(*self.call(lambda: key in self.cache, lambda model: model.contains(op.rows[0])))

    def do_touch(self, op: Op) -> None:
        key = self.key_of(op)
        self.same(*self.call(lambda: self.cache.touch(key), lambda model: model.touch(op.rows[0])))

    def do_delete(self, op: Op) -> None:
        key = self.key_of(op)
        self.call(lambda: self.cache.__delitem__(key), lambda model: model.pop(op.rows[0]))

    def do_pop(self, op: Op) -> None:
        key = self.key_of(op)
        self.value(*self.call(lambda: self.cache.pop(key), lambda model: model.pop(op.rows[0])))

    def do_pop_default(self, op: Op) -> None:
        key = self.key_of(op)
        self.value(
            *self.call(
                lambda: self.cache.pop(key, None),
                lambda model: model.pop(op.rows[0]) if model.contains(op.rows[0]) else None,
            )
        )

    def do_setdefault(self, op: Op) -> None:
        key, value = self.key_of(op), self.value_of(op)
        self.value(
            *self.call(
                lambda: self.cache.setdefault(key, value),
                lambda model: model.setdefault(op.rows[0], op.values[0]),
            )
        )

    def do_increment(self, op: Op) -> None:
        if "steps" not in op.options:
            return
        key, name, step = self.key_of(op), op.options["field"], op.options["steps"][0]
        by = step if not op.inner else self.number(step)
        self.same(
            *self.call(
                lambda: self.cache.increment(key, name, by) if name else self.cache.increment(key, by=by),
                lambda model: model.increment(op.rows[0], name, step),
            )
        )

    def number(self, step: Any) -> Any:
        """A step whose reading runs code."""
        return Integer(step, self.hook) if isinstance(step, int) else Real(step, self.hook)

    def do_update_fields(self, op: Op) -> None:
        if not self.values.names:
            return
        chosen = [at for at in range(len(self.values.names)) if op.options["fields"] >> at & 1]
        row = op.values[0]
        full = self.values.item(row, op.options["value_form"], self.hook if op.inner else None)
        key = self.key_of(op)
        named: dict[str, Any] = {}
        for at in chosen:
            name = self.values.names[at]
            named[name] = full[at] if type(full) in (tuple, Items) else _quietly(full, name)
        parts = {self.values.names[at]: self.values.part(row, at) for at in chosen}
        self.call(
            lambda: self.cache.update_fields(key, **named),
            lambda model: model.update_fields(op.rows[0], **parts),
        )

    # ---- many keys -------------------------------------------------------------------------------------

    def arguments(self, op: Op, *, values: bool) -> tuple[list[Any], Callable[[], None]]:
        """The arrays of a batch, and what checks that it has not written to them."""
        hook = self.hook if op.inner else None
        made = [lay_out(self.keys, op.rows, op.options["keys"], hook)]
        if values:
            made.append(lay_out(self.values, op.values, op.options["values"], hook))
        given = [layout.value for layout in made]
        if op.options.get("zero_dim") and len(op.rows) == 1:
            given = [codec.array(rows)[0, ...] for codec, rows in
                     ((self.keys, op.rows), (self.values, op.values))][: len(made)]  # fmt: skip
            return given, lambda: None

        def check() -> None:
            for layout in made:
                if not isinstance(layout.value, Clearing):
                    layout.assert_untouched()

        return given, check

    def do_put_many(self, op: Op) -> None:
        given, check = self.arguments(op, values=True)
        wants = op.options["return_evicted"]

        def act(model: RowModel) -> Any:
            start = len(model.evicted)
            count = model.put_many(op.rows, op.values)
            return model.evicted[start:] if wants else count

        result, expected = self.call(lambda: self.cache.put_many(*given, return_evicted=wants), act)
        check()
        if wants and result is not _NOTHING:
            keys, values = result
            result = list(zip(self.keys.rows(keys), self.values.rows(values), strict=True))
        assert result == expected, f"evicted {result}, not {expected}"

    def do_get_many(self, op: Op, name: str = "get") -> None:
        given, check = self.arguments(op, values=False)
        out, more = self.out_for(op, given[0])
        if out is not None and isinstance(given[0], np.ndarray) and np.may_share_memory(out, given[0]):
            check = _nothing
        result, expected = self.call(
            lambda: getattr(self.cache, f"{name}_many")(given[0], **more),
            lambda model: model.read_rows(op.rows, name),
        )
        if result is _NOTHING:
            return
        check()
        values, found = result
        assert out is None or values is out
        assert values.dtype == np.zeros(0, self.values.dtype).dtype
        if is_single(given[0]):
            assert found.shape == ()
            values, found = values[None], found[None]
        assert found.dtype == np.bool_
        rows = self.values.rows(values)
        assert (rows, found.tolist()) == expected, f"{(rows, found.tolist())}, not {expected}"

    def do_peek_many(self, op: Op) -> None:
        self.do_get_many(op, "peek")

    def out_for(self, op: Op, keys: Any) -> tuple[Any, dict[str, Any]]:
        how, count = op.options["out"], len(op.rows)
        if how is None or is_single(keys):
            return None, {}
        out = np.zeros(count, self.values.dtype)
        if how == "strided":
            out = np.zeros(2 * count, self.values.dtype)[::2]
        plain = isinstance(keys, np.ndarray) and keys.ndim == 1 and keys.flags.writeable and keys.base is None
        simple = not self.values.names and self.values.dtype.subdtype is None
        if how == "overlapping" and plain and simple and keys.itemsize == self.values.dtype.itemsize:
            out = keys.view(self.values.dtype)
            out = out[::-1] if count % 2 else out
        return out, {"out": out}

    def do_contains_many(self, op: Op, name: str = "contains") -> None:
        given, check = self.arguments(op, values=False)
        result, expected = self.call(
            lambda: getattr(self.cache, f"{name}_many")(given[0]),
            lambda model: [getattr(model, name)(key) for key in op.rows],
        )
        if result is _NOTHING:
            return
        check()
        assert result.dtype == np.bool_
        assert result.ravel().tolist() == expected, f"{result}, not {expected}"
        assert result.ndim == (0 if is_single(given[0]) else 1)

    def do_touch_many(self, op: Op) -> None:
        self.do_contains_many(op, "touch")

    def do_delete_many(self, op: Op) -> None:
        self.do_contains_many(op, "delete")

    def do_increment_many(self, op: Op) -> None:
        if "steps" not in op.options:
            return
        given, check = self.arguments(op, values=False)
        name, member = op.options["field"], self.values.fields[self.values.at(op.options["field"])][1]
        steps = (op.options["steps"] * len(op.rows))[: len(op.rows)]
        steps, by = self.steps(op.options["by"], steps, member, bool(op.inner))
        more = {"by": by} if name is None else {"field": name, "by": by}
        result, expected = self.call(
            lambda: self.cache.increment_many(given[0], **more),
            lambda model: model.increment_rows(op.rows, name, steps),
        )
        if result is _NOTHING:
            return
        check()
        values, found = result
        assert values.dtype == (self.values.dtype if name is None else self.values.dtype[name])
        with np.errstate(over="ignore"):
            wanted = np.array(expected[0], member).tobytes()
        assert values.astype(member).tobytes() == wanted, f"{values}, not {expected[0]}"
        assert found.ravel().tolist() == expected[1]

    def steps(self, how: str, steps: Any, member: np.dtype, runs: bool) -> tuple[Any, Any]:
        """The steps of each row, and the argument that says so."""
        if how == "one":
            step = steps[0] if steps else 1
            return (step,) * len(steps), step
        if how == "array" and all(abs(step) < 2**63 for step in steps):
            return steps, np.array(steps, "f8" if member.kind == "f" else "i8")
        if how == "narrow array" and all(abs(step) < 100 for step in steps):
            return steps, np.array(steps, "f2" if member.kind == "f" else ">i2")
        if how == "iterator":
            return steps, iter(steps)
        if how == "odd" and runs:
            return steps, [self.number(step) for step in steps]
        return steps, list(steps)

    def do_update(self, op: Op) -> None:
        """Each item is a call of its own: what one reads runs after the one before it is done."""
        hook = self.hook if op.inner else None

        def settle() -> None:
            pending.settle()
            assert not pending.evicted, f"on_evict was not told of {pending.evicted}"

        def items() -> Iterator[tuple[Any, Any]]:
            nonlocal pending
            for key, value in zip(op.rows, op.values, strict=True):
                in_call, self.in_call = self.in_call, False
                settle()
                pending = self.stack[-1] = Pending(self, lambda model, k=key, v=value: model.put(k, v))
                item = self.keys.item(key), self.values.item(value, op.options["values"], hook)
                self.in_call = in_call
                yield item

        pending = Pending(self, lambda model: None)
        self.stack.append(pending)
        self.in_call = True
        try:
            self.cache.update(Keyed(items()) if op.options["keys"] == "__array__" else items())
        except RaisedError as error:
            if error.args == ("reading",):
                pending.is_settled = True
        finally:
            self.in_call = False
            self.stack.pop()
        settle()

    # ---- the whole -------------------------------------------------------------------------------------

    def do_popitem(self, op: Op) -> None:
        result, expected = self.call(lambda: self.cache.popitem(), lambda model: model.popitem())
        if result is not _NOTHING:
            assert canon(result[0]) == self.keys.canon(expected[0])
            self.value(result[1], expected[1])

    def do_clear(self, op: Op) -> None:
        self.call(lambda: self.cache.clear(), lambda model: model.clear())

    def do_reset_stats(self, op: Op) -> None:
        self.call(lambda: self.cache.reset_stats(), lambda model: model.reset_stats())

    def do_resize(self, op: Op) -> None:
        result, expected = self.call(
            lambda: self.cache.resize(op.options["capacity"]),
            lambda model: model.resize(op.options["capacity"]),
        )
        assert result == expected or result is _NOTHING

    def do_snapshot(self, op: Op) -> None:
        self.quiet += 1
        keys = self.cache.snapshot()[0]
        assert (keys.dtype, len(keys)) == (self.keys.dtype, len(self.model.data))
        self.quiet -= 1

    def do_copies(self, op: Op) -> None:
        self.quiet += 1
        for other in (self.cache.copy(), copy.deepcopy(self.cache), pickle.loads(pickle.dumps(self.cache))):
            other._check()
            keys, values = other.snapshot()
            assert self.pairs(keys, values) == tuple(self.model.data.items())
            assert other.stats().capacity == self.model.capacity
        self.quiet -= 1

    def do_views(self, op: Op) -> None:
        self.quiet += 1
        items = [(self.keys.canon(key), self.values.canon(row)) for key, row in self.model.data.items()]
        assert canon_items(self.cache.items()) == items
        assert canon_items(reversed(self.cache.items())) == items[::-1]
        assert [canon(key) for key in self.cache] == [key for key, _ in items]
        assert [canon(value) for value in reversed(self.cache.values())] == [
            value for _, value in items[::-1]
        ]
        assert len(self.cache.keys()) == len(items)
        for key, row in self.model.data.items():
            item = self.keys.item(key), self.values.item(row)
            assert item[0] in self.cache.keys()  # noqa: SIM118 - the view
            if not self.values.has_nan(row):
                assert item in self.cache.items()
                assert item[1] in self.cache.values()
        repr(self.cache)
        self.quiet -= 1

    def do_equal(self, op: Op) -> None:
        self.quiet += 1
        other = self.cache.copy()
        assert other == self.cache
        plain = {self.keys.item(key): self.values.item(row) for key, row in self.model.data.items()}
        if not any(map(self.values.has_nan, self.model.data.values())):
            assert self.cache == plain
            assert self.cache == other
        if self.model.data:
            other.popitem()
            assert other != self.cache
            plain.popitem()
            assert self.cache != plain
        assert self.cache != 5
        self.quiet -= 1

    def do_iterate(self, op: Op) -> None:
        """A change of content or order shows at the next step, and nothing else does."""
        if not self.model.data:
            return
        iterator = iter(self.cache.items())
        next(iterator)
        before = self.model.state()
        self.run_inner()
        items = list(self.model.data.items())
        try:
            rest = list(iterator)
        except RuntimeError:
            return  # a write that leaves all as it was may count as a change
        assert before[0] == tuple(items) or self.only_first_changed(before[0]), "a change went unnoticed"
        assert len(rest) == len(items) - 1

    def only_first_changed(self, before: Any) -> bool:
        """What was yielded may be changed once, as in a dict."""
        return dict(before[1:]).items() <= self.model.data.items()

    # ---- what is refused -------------------------------------------------------------------------------

    def do_bad(self, op: Op) -> None:
        how, pick = op.options["how"], op.options["pick"]
        made = (bad_batch if how == "batch" else bad_item)(self, op, pick)
        if made is None:
            return
        call, errors = made
        try:
            result = call()
        except errors:
            return
        raise AssertionError(f"{made} returned {result!r}")

    # ---- comparing -------------------------------------------------------------------------------------

    def pairs(self, keys: np.ndarray, values: np.ndarray) -> tuple[Any, ...]:
        return tuple(zip(self.keys.rows(keys), self.values.rows(values), strict=True))

    def state(self) -> tuple[Any, ...]:
        return self.pairs(*self.cache.snapshot()), self.cache.stats()._asdict()

    def agree(self) -> None:
        in_call, self.in_call = self.in_call, False
        self.cache._check()
        real, wanted = self.state(), self.model.state()
        assert real == wanted, f"the cache is\n  {real}\nand not\n  {wanted}"
        assert len(self.cache) == len(self.model.data)
        self.in_call = in_call


__all__ = ["draw_case", "run_case"]
_NOTHING = object()


def _nothing() -> None:
    """No check."""


def is_single(keys: Any) -> bool:
    return isinstance(keys, (np.ndarray, np.generic)) and keys.ndim == 0


def _quietly(full: Any, name: str) -> Any:
    """A field without running the hook: the call is to do that."""
    if hasattr(full, "_fields"):
        return getattr(full, name)
    return getattr(full, "named", full)[name]


def _probe(record: Any, codec: Codec) -> None:
    """What a Record has besides attributes."""
    items = tuple(record)
    assert len(record) == len(items) == len(record._fields)
    assert record._fields == codec.names
    assert record == record
    assert canon(record[-1]) == canon(items[-1])
    assert canon(tuple(record._asdict().values())) == canon(items)
    assert canon(pickle.loads(pickle.dumps(record))) == canon(items)
    repr(record)
    if not codec.dtype.hasobject and all(member.subdtype is None for _, member in codec.fields):
        hash(record)


class Trash:
    """A cycle that the collector finds; its finalizer uses the cache, and leaves another cycle for the next
    collection. It keeps no run alive."""

    def __init__(self, run: Run, left: int) -> None:
        self.run, self.left, self.me = weakref.ref(run), left, self

    def __del__(self) -> None:
        run = self.run()
        if run is None:
            return
        try:
            run.finalize()
        except BaseException as error:  # would only be printed
            run.broken = run.broken or error
        if self.left:
            Trash(run, self.left - 1)


def run_case(case: Case) -> int:
    """Carry out a case; how many operations."""
    run = Run(case)
    run()
    return run.done
