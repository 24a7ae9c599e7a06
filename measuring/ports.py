"""A free port."""

from __future__ import annotations

import socket

__all__ = ["free_port"]


def free_port() -> int:
    """Of loopback; nobody has it now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
