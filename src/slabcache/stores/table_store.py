"""What stores have in common that keep rows of fixed types in the columns of a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from slabcache.codec.dtypes import Description, Role, describe
from slabcache.codec.record import Schema
from slabcache.codec.rows import from_rows
from slabcache.errors import RowsRejected
from slabcache.stores.columns import check_rows, columns_of

__all__ = ["TableStore"]

Array = np.ndarray[Any, Any]


class TableStore(ABC):
    """The types of the rows and their columns; `_names` are those of the columns in `_key` and `_value`."""

    _keeps_nan = True  # otherwise NULL stands for NaN

    def __init__(self, key: npt.DTypeLike, value: npt.DTypeLike) -> None:
        self._descriptions: dict[Role, Description] = {
            "key": describe(key, "key"),
            "value": describe(value, "value"),
        }
        self._key, self._value = columns_of(key, value)
        self._null_value = np.zeros((), self.value_dtype)

    @property
    def key_dtype(self) -> np.dtype[Any]:
        """The dtype of keys, as it was given."""
        return self._descriptions["key"].dtype

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The dtype of values, as it was given."""
        return self._descriptions["value"].dtype

    @property
    def null_value(self) -> Any:
        """What NULL in a column of the value is read as: a value of `value_dtype`, of which each column takes
        its field. Zeros, unless something else is assigned: a tuple, mapping or Record of the fields, or the
        value of a type that has none. A cache with a `default` assigns that."""
        return self._null_value

    @null_value.setter
    def null_value(self, value: Any) -> None:
        # As the cache takes its default: nothing is cut off or rounded in silence.
        schema = Schema(self.value_dtype, "value")
        self._null_value = from_rows(schema, schema.encode_rows([value]))[0]

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"a {name} can be neither copied nor pickled, as its connections belong to this process: make "
            f"another {name} with the same arguments where one is needed"
        )

    def _check(self, rows: Array, role: Role) -> None:
        check_rows(rows, self._descriptions[role], role)

    def _decoded(self, keys: Sequence[Any], columns: Sequence[Sequence[Any]]) -> Array:
        """The values of rows that a driver has given as columns; `keys` names them, one by one.

        RowsRejected where a column has what its field cannot hold, with the key of the first such row.
        """
        count = len(keys)
        try:
            return self._filled(count, columns)
        except ValueError:
            for key, row in zip(keys, zip(*columns, strict=True), strict=True):
                try:
                    self._filled(1, [[item] for item in row])
                except ValueError as error:
                    raise RowsRejected(f"{self._table_name()}, key {key!r}, {error}") from error
            raise  # it cannot be: each row by itself is as it should be

    def _filled(self, count: int, columns: Sequence[Sequence[Any]]) -> Array:
        target = np.zeros(count, self.value_dtype)
        target[...] = self._null_value
        if count == 0:
            return target
        for column, items in zip(self._value, columns, strict=True):
            column.from_driver(list(items), target, null_is_nan=not self._keeps_nan)
        return target

    @abstractmethod
    def _table_name(self) -> str:
        """What messages call the table."""
