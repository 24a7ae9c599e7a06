"""Connections of the driver for Cassandra. Imported before anything else of it: it may not be there."""

from __future__ import annotations

try:
    from cassandra.cluster import DefaultConnection
except ImportError as error:
    raise ImportError(
        "CassandraStore needs the driver for Cassandra: pip install 'slabcache[cassandra]'"
    ) from error
except Exception as error:  # its DependencyException, which is no ImportError: it was built without libev
    raise ImportError(
        "the driver for Cassandra was built without an event loop: install the headers of libev (Debian, "
        "Ubuntu: apt install libev-dev), then pip install --force-reinstall --no-cache-dir cassandra-driver"
    ) from error

__all__ = ["ForkSafeConnection"]


class ForkSafeConnection(DefaultConnection):
    """A connection of the driver, for `connection_class` of its `Cluster`."""

    @classmethod
    def handle_fork(cls) -> None:
        """In the child of a fork, called before its first event loop is made. The driver would close the
        parent's connections here, and wait for ever for a lock that another thread of the parent has held.
        They are left alone, open and unused."""
