"""Cases of the fuzzer of `SlabCache`: lists of calls, drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np

from fuzz.codec import FORMS, LAYOUTS, Codec, draw_spec
from fuzz.hostile import BAD

DEPTH = 3  # calls within calls
LARGE = 300  # rows of a batch that lets the GIL go


@dataclass(frozen=True)
class Op:
    """One call. `rows` and `values` are packed; the options say in what form they are given."""

    name: str
    rows: tuple[bytes, ...] = ()
    values: tuple[bytes, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    inner: tuple[Op, ...] = ()

    def shorter(self) -> Iterator[Op]:
        """The same with less in it."""
        for at in range(len(self.inner)):
            yield replace(self, inner=self.inner[:at] + self.inner[at + 1 :])
        for at, op in enumerate(self.inner):
            for less in op.shorter():
                yield replace(self, inner=(*self.inner[:at], less, *self.inner[at + 1 :]))
        if len(self.rows) > 1:
            middle = len(self.rows) // 2
            for part in (slice(middle), slice(middle, None)):
                yield replace(self, rows=self.rows[part], values=self.values[part])


@dataclass(frozen=True)
class Case:
    key: Any
    value: Any
    capacity: int
    on_evict: bool
    collects: bool  # the collector runs at each step, and finalizers use the cache
    seed: int
    ops: tuple[Op, ...]

    def program(self) -> str:
        """What a report prints."""
        keys, values = Codec(self.key, "key"), Codec(self.value, "value")
        watched = ", on_evict=..." if self.on_evict else ""
        lines = [f"cache = SlabCache({self.capacity}, {self.key!r}, {self.value!r}{watched})"]
        lines += ["gc.set_threshold(1)  # and finalizers use the cache"] * self.collects
        return "\n".join(lines + [line for op in self.ops for line in _lines(op, keys, values, "")])


def _lines(op: Op, keys: Codec, values: Codec, indent: str) -> list[str]:
    def shown(codec: Codec, rows: Sequence[bytes]) -> str:
        distinct = [repr(codec.item(row)) for row in rows]
        return f"[{', '.join(distinct[:12])}{f', ... {len(rows)}' if len(rows) > 12 else ''}]"

    text = f"{indent}{op.name}: keys {shown(keys, op.rows)}"
    text += f" values {shown(values, op.values)}" if op.values else ""
    text += "".join(f" {name}={value!r}" for name, value in op.options.items() if value is not None)
    return [text] + [line for inner in op.inner for line in _lines(inner, keys, values, indent + "    ")]


# ---- drawing -------------------------------------------------------------------------------------------

ONE_KEY = (
    "put", "put", "put", "getitem", "get", "peek", "contains", "touch", "delete", "pop", "pop default",
    "setdefault", "increment", "increment", "update_fields",
)  # fmt: skip
MANY_KEYS = (
    "put_many", "put_many", "put_many", "get_many", "peek_many", "contains_many", "touch_many", "delete_many",
    "increment_many", "increment_many", "update", "update",
)  # fmt: skip
WHOLE = ("popitem", "clear", "resize", "reset_stats", "snapshot", "copies", "iterate", "views", "equal")


def draw_case(rng: Random, length: int = 60) -> Case:
    keys, values = Codec(draw_spec(rng, "key"), "key"), Codec(draw_spec(rng, "value"), "value")
    capacity = rng.choice((1, 1, 2, 3, 5, 8, 13))
    pool = [keys.draw(rng) for _ in range(rng.randint(2, 2 * capacity + 2))]
    collects = rng.random() < 0.04

    def draw_op(depth: int = 0) -> Op:
        kind = rng.random()
        options: dict[str, Any] = {}
        if kind < 0.6:
            op = Op(rng.choice(ONE_KEY), (rng.choice(pool),), (values.draw(rng),))
            options = {"key_form": rng.choice(FORMS), "value_form": rng.choice(FORMS)}
        elif kind < 0.85:
            count = LARGE if rng.random() < 0.01 else rng.randrange(9)
            rows = tuple(rng.choice(pool) for _ in range(count))
            fresh = [values.draw(rng) for _ in range(min(count, 12))]
            op = Op(rng.choice(MANY_KEYS), rows, tuple(fresh[at % 12] for at in range(count)))
            options = {"keys": rng.choice(LAYOUTS), "values": rng.choice(LAYOUTS)}
            if op.name.endswith(("get_many", "peek_many")):
                options["out"] = rng.choice((None, "new", "strided", "overlapping"))
            if op.name == "put_many":
                options["return_evicted"] = rng.random() < 0.3
            if op.rows and rng.random() < 0.05:
                op = replace(op, rows=op.rows[:1], values=op.values[:1])
                options["zero_dim"] = True
        elif kind < 0.97:
            op = Op(rng.choice(WHOLE))
            options = {"capacity": rng.choice((1, 2, 3, 5, 8, 13))} if op.name == "resize" else {}
        else:
            op = Op("bad", (rng.choice(pool), rng.choice(pool)), (values.draw(rng), values.draw(rng)))
            options = {"how": rng.choice(BAD), "pick": rng.randrange(1000)}
        if op.name.startswith("increment"):
            options |= _draw_steps(rng, values, max(len(op.rows), 1))
        if op.name == "update_fields":
            options["fields"] = rng.randrange(16)
        inner: tuple[Op, ...] = ()
        if depth < DEPTH and rng.random() < (0.5 if collects else 0.12):
            inner = tuple(draw_op(depth + 1) for _ in range(rng.randint(1, 2)))
            options["raises"] = rng.choice((None, None, None, "reading", "on_evict"))
        return replace(op, options=options, inner=inner)

    ops = tuple(draw_op() for _ in range(length))
    return Case(keys.spec, values.spec, capacity, rng.random() < 0.5, collects, rng.randrange(2**32), ops)


def _draw_steps(rng: Random, values: Codec, count: int) -> dict[str, Any]:
    if not values.numbers:
        return {}
    at = rng.choice(values.numbers)
    name, member = values.fields[at]
    steps: list[Any] = []
    for _ in range(count):
        small = rng.randint(-3, 3)
        if member.kind == "f":
            steps.append(rng.choice((small, small / 2)))
        else:
            low, high = np.iinfo(member).min, np.iinfo(member).max
            steps.append(small if rng.random() < 0.9 else rng.randint(int(low) - int(high), int(high)))
    by = rng.choice(("one", "list", "iterator", "array", "narrow array", "odd"))
    return {"field": name or None, "steps": tuple(steps), "by": by}
