"""A store in memory that fails when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from slabcache import RowsRejected, WriteBehindCache


class FaultyStore:
    """Rows in a dict. `failure`, if set, is raised by writes (`failing_loads` by loads); `gate` holds calls
    up while it is closed; keys of `refused` are refused by writes, those of `damaged` by loads."""

    def __init__(self, key: Any = "u8", value: Any = "i8", rows: dict[Any, Any] | None = None) -> None:
        self.key_dtype = np.dtype(key)
        self.value_dtype = np.dtype(value)
        self.rows = dict(rows or {})
        self.failure: BaseException | None = None
        self.failing_loads: BaseException | None = None
        self.refused: set[Any] = set()
        self.damaged: set[Any] = set()
        self.refusal: BaseException = RowsRejected("never")
        self.gate = threading.Event()
        self.gate.set()
        self.loading = threading.Event()  # a load has begun
        self.saving = threading.Event()  # a save or a deletion has begun
        self.loads: list[list[Any]] = []
        self.saves: list[dict[Any, Any]] = []
        self.deletes: list[list[Any]] = []
        self.closed = 0
        self.after_load: Callable[[], object] | None = None  # called once, before a load returns
        self.answer: Any = None  # what loads return instead
        self.lock = threading.Lock()

    def load_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        names = self._names(keys)
        with self.lock:
            self.loads.append(names)
            rows = {name: self.rows[name] for name in names if name in self.rows}
        self.loading.set()
        self.gate.wait()
        if self.failing_loads is not None:
            raise self.failing_loads
        if self.damaged.intersection(names):
            raise self.refusal
        if self.answer is not None:
            return self.answer
        after_load, self.after_load = self.after_load, None
        if after_load is not None:
            after_load()
        values = np.zeros(len(names), self.value_dtype)
        found = np.zeros(len(names), bool)
        for place, name in enumerate(names):
            if name in rows:
                values[place] = rows[name]
                found[place] = True
        return values, found

    def save_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        names = self._write(keys)
        with self.lock:
            self.saves.append(dict(zip(names, values.tolist(), strict=True)))
            self.rows.update(self.saves[-1])

    def delete_many(self, keys: np.ndarray) -> None:
        names = self._write(keys)
        with self.lock:
            self.deletes.append(names)
            for name in names:
                self.rows.pop(name, None)

    def close(self) -> None:
        self.closed += 1

    def _write(self, keys: np.ndarray) -> list[Any]:
        self.saving.set()
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        names = self._names(keys)
        if self.refused.intersection(names):
            raise self.refusal
        return names

    @staticmethod
    def _names(keys: Iterable[Any]) -> list[Any]:
        names = np.asarray(keys).tolist()
        assert len(set(names)) == len(names), "keys are distinct"
        return names


def make(
    store: FaultyStore | None = None, capacity: int = 8, **options: Any
) -> tuple[FaultyStore, WriteBehindCache]:
    store = store or FaultyStore()
    return store, WriteBehindCache(capacity, store, **{"flush_interval": 1000.0, **options})
