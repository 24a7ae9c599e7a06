"""The exceptions that are slabcache's own; all others are Python's."""

from __future__ import annotations

import copy

__all__ = [
    "BackpressureError",
    "ClosedError",
    "RowsRejected",
    "SumOverflowError",
    "UnfitKeyError",
    "as_unfit_key",
    "own_copy",
]


class RowsRejected(Exception):  # noqa: N818 - it says what happened, as StopIteration does
    """Raised by a store that will never take, or give, some of the rows it was asked to.

    A `WriteBehindCache` then finds those rows by halving the batch and goes on with the others. It hands rows
    that cannot be saved to `on_rejected`, and raises for rows that cannot be loaded to those who asked for
    them. Whatever else a store raises is temporary: no acknowledged row is given up for it.
    """


class BackpressureError(TimeoutError):
    """A write found all room taken by entries that the store has yet to confirm, for `backpressure_timeout`
    seconds. Nothing was changed; try again later."""


class ClosedError(ValueError):
    """A call on a `WriteBehindCache` that has been closed; as for files, a `ValueError`."""


class SumOverflowError(OverflowError):
    """A sum of `increment_many` does not fit its field. The rows before `row` are done, that row and those
    after it are not."""

    def __init__(self, field: str, row: int) -> None:
        super().__init__(field, row)
        self.field = field
        self.row = row

    def __str__(self) -> str:
        done = "the rows before it are done" if self.row else "nothing was changed"
        return f"{self.field}: the sum in row {self.row} is out of range; {done}"


class UnfitKeyError(KeyError):
    """A key that no entry of the cache can have: it is in no cache, so that a `ChainMap` goes on to the next
    mapping. What is raised is one of those below, and so a TypeError, ValueError or OverflowError as well."""

    __str__ = Exception.__str__  # that of KeyError shows the message in quotes


class UnfitKeyTypeError(UnfitKeyError, TypeError):
    """The key is of the wrong type."""


class UnfitKeyValueError(UnfitKeyError, ValueError):
    """The key has too many bytes, or too few, or other fields."""


class UnfitKeyOverflowError(UnfitKeyError, OverflowError):
    """An integer of the key is out of range."""


def as_unfit_key(error: Exception) -> Exception:
    """The error of an item that is no key as one that is a KeyError, too."""
    if type(error) is TypeError:
        return UnfitKeyTypeError(*error.args)
    if type(error) is ValueError:
        return UnfitKeyValueError(*error.args)
    if type(error) is OverflowError:
        return UnfitKeyOverflowError(*error.args)
    return error


def own_copy(error: BaseException) -> BaseException:
    """An exception of the same kind and text, with `error` as its cause, for one of several who get it.

    An exception that is raised gathers the frames that it passes. Shared by all who wait for one load, it
    would gather those of all of them, from several threads at a time.
    """
    try:
        mine = copy.copy(error)
    except Exception:  # its constructor takes other arguments
        mine = error
    if mine is error or type(mine) is not type(error):
        mine = RuntimeError(f"{type(error).__name__}: {error}")
    if hasattr(error, "__notes__"):
        mine.__notes__ = list(error.__notes__)
    mine.__traceback__ = mine.__context__ = None
    mine.__cause__ = error
    return mine
