"""Types of the extension module `slabcache._batch`."""

from collections.abc import Iterable
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from slabcache._core import CacheCore

_Array = np.ndarray[Any, Any]
_Bools = npt.NDArray[np.bool_]
_Rows = npt.ArrayLike | Iterable[Any]

class BatchCore(CacheCore):
    def get_many(self, keys: _Rows, *, out: _Array | None = None) -> tuple[_Array, _Bools]: ...
    def peek_many(self, keys: _Rows, *, out: _Array | None = None) -> tuple[_Array, _Bools]: ...
    def contains_many(self, keys: _Rows) -> _Bools: ...
    def touch_many(self, keys: _Rows) -> _Bools: ...
    @overload
    def put_many(self, keys: _Rows, values: _Rows, *, return_evicted: Literal[False] = False) -> int: ...
    @overload
    def put_many(
        self, keys: _Rows, values: _Rows, *, return_evicted: Literal[True]
    ) -> tuple[_Array, _Array]: ...
    @overload
    def put_many(
        self, keys: _Rows, values: _Rows, *, return_evicted: bool
    ) -> int | tuple[_Array, _Array]: ...
    def delete_many(self, keys: _Rows) -> _Bools: ...
    def increment_many(
        self, keys: _Rows, field: str | None = None, by: npt.ArrayLike | Iterable[float] = 1
    ) -> tuple[_Array, _Bools]: ...
