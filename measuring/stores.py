"""A store that keeps nothing."""

from __future__ import annotations

from time import sleep
from typing import Any

import numpy as np

__all__ = ["VoidStore"]


class VoidStore:
    """It takes everything, after a pause if one is given, and has nothing."""

    def __init__(self, key: Any, value: Any, pause: float = 0) -> None:
        self.key_dtype, self.value_dtype = np.dtype(key), np.dtype(value)
        self.pause = pause

    def load_many(self, keys: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return np.zeros(len(keys), self.value_dtype), np.zeros(len(keys), np.bool_)

    def save_many(self, keys: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> None:
        assert len(keys) == len(values)
        sleep(self.pause)

    def delete_many(self, keys: np.ndarray[Any, Any]) -> None:  # noqa: ARG002 - there are none
        sleep(self.pause)

    def close(self) -> None:
        pass
