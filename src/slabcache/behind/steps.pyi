"""Types of the extension module `slabcache.behind.steps`."""

from collections.abc import Generator
from typing import Any, Generic, Self, TypeVar, final

_Need = TypeVar("_Need")
_Result = TypeVar("_Result")

@final
class Call(Generic[_Need, _Result]):
    def __new__(cls, steps: Generator[_Need, Any, _Result]) -> Self: ...
    def advance(self) -> bool: ...
    def close(self) -> None: ...
    @property
    def need(self) -> _Need: ...
    @property
    def result(self) -> _Result: ...
