"""How `CassandraStore` reaches its nodes: the options for that, checked, and the driver's `Cluster`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slabcache.arguments import seconds
from slabcache.stores.cassandra_connection import ForkSafeConnection

# isort: split
# After cassandra_connection, which says what to install where there is no driver.
from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    OperationTimedOut,
    RequestExecutionException,
    UnresolvableContactPoints,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy
from cassandra.query import tuple_factory

__all__ = [
    "UNREACHABLE",
    "ClusterOptions",
    "check_consistency",
    "check_credentials",
    "check_hosts",
    "check_timeout",
    "check_tls",
    "is_refused",
]

# Those at which a row that was acknowledged is on a replica, and which both reads and writes can have.
_LEVELS = ("ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_QUORUM", "EACH_QUORUM", "LOCAL_ONE")
_RECONNECT_DELAYS = (0.25, 2.0)  # seconds, from the first to the longest: rows wait in memory meanwhile
_HEARTBEAT = 10.0  # seconds; a connection that nothing comes back on is closed after two of them
_PROTOCOL = 4  # of Cassandra 2.2 and all later ones; the driver would try newer ones first, and log each

# What the driver raises when it cannot reach a node that answers.
UNREACHABLE = (NoHostAvailable, UnresolvableContactPoints, OperationTimedOut, RequestExecutionException)


@dataclass(frozen=True)
class ClusterOptions:
    """Which nodes are asked, and how. The fields are the parameters of `CassandraStore`, checked."""

    hosts: list[str]
    port: int
    datacenter: str | None
    consistency: str
    credentials: tuple[str, str] | None = field(repr=False)  # user name and password
    tls: ssl.SSLContext | None
    request_timeout: float  # seconds

    def cluster(self) -> Cluster:
        """A new `Cluster`, not connected yet.

        Each has policies of its own. A policy keeps what it knows of the nodes, and has a lock: the child of
        a fork must not use one whose lock a thread of the driver has held in the parent.
        """
        return Cluster(
            self.hosts,
            port=self.port,
            connection_class=ForkSafeConnection,
            protocol_version=_PROTOCOL,
            auth_provider=PlainTextAuthProvider(*self.credentials) if self.credentials else None,
            ssl_context=self.tls,
            execution_profiles={EXEC_PROFILE_DEFAULT: self._profile()},
            connect_timeout=self.request_timeout,
            control_connection_timeout=self.request_timeout,
            reconnection_policy=ExponentialReconnectionPolicy(*_RECONNECT_DELAYS, max_attempts=None),
            idle_heartbeat_interval=_HEARTBEAT,
            idle_heartbeat_timeout=_HEARTBEAT,
        )

    def _profile(self) -> ExecutionProfile:
        """How requests are sent: to a replica of the row in the nearest datacenter."""
        nearby = DCAwareRoundRobinPolicy(self.datacenter) if self.datacenter else DCAwareRoundRobinPolicy()
        return ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(nearby),
            consistency_level=ConsistencyLevel.name_to_value[self.consistency],
            request_timeout=self.request_timeout,
            row_factory=tuple_factory,
        )


# ---- checks of parameters, each of which returns what it has checked --------------------------------


def check_hosts(hosts: str | Sequence[str]) -> list[str]:
    checked = [hosts] if isinstance(hosts, str) else list(hosts)
    if not checked or not all(isinstance(host, str) and host for host in checked):
        raise ValueError(f"hosts {hosts!r} must be the name or address of a node, or several")
    return checked


def check_consistency(level: str) -> str:
    if level not in _LEVELS:
        raise ValueError(f"consistency {level!r} is none of {', '.join(_LEVELS)}")
    return level


def check_credentials(username: str | None, password: str | None) -> tuple[str, str] | None:
    if (username is None) != (password is None):
        raise ValueError("give both username and password, or neither")
    return None if username is None or password is None else (username, password)


def check_timeout(request_timeout: float) -> float:
    request_timeout = seconds("request_timeout", request_timeout)
    if request_timeout == 0:
        raise ValueError("request_timeout must be more than 0 seconds")
    return request_timeout


def check_tls(tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext, not {type(tls).__name__}")
    return tls


# ---- what the driver raises -------------------------------------------------------------------------


def is_refused(error: Exception) -> bool:
    """Whether a node was there, and would not talk: waiting does not help."""
    told = getattr(error, "errors", None)  # what each node has said, as far as the driver tells
    return isinstance(told, Mapping) and any(map(_is_refusal, told.values()))


def _is_refusal(error: object) -> bool:
    # The driver makes another error of Python's for certificates, and leaves but its text.
    return isinstance(error, AuthenticationFailed) or "CERTIFICATE_VERIFY_FAILED" in str(error)
