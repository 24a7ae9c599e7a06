"""The exceptions that are slabcache's own; all others are Python's."""

__all__ = ["BackpressureError", "ClosedError", "RowsRejected"]


class RowsRejected(Exception):  # noqa: N818 - it says what happened, as StopIteration does
    """Raised by a store that will never take some of the rows it was given.

    A `WriteBehindCache` then finds those rows by halving the batch, reports them to `on_rejected`, and goes
    on with the others. Whatever else a store raises is taken as temporary, and the batch is tried again; but
    for `ValueError`, `TypeError` and `OverflowError`, which mean the same as this one.
    """


class BackpressureError(TimeoutError):
    """A write found all room taken by entries that the store has yet to confirm, for `backpressure_timeout`
    seconds. Nothing was changed; try again later."""


class ClosedError(ValueError):
    """A call on a `WriteBehindCache` that has been closed; as for files, a `ValueError`."""
