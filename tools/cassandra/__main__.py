"""A real Cassandra server for tests, as commands.

    python3 -m tools.cassandra check     exits 1 with one line if Java 17 or Maven is missing
    python3 -m tools.cassandra fetch     the jars, once
    python3 -m tools.cassandra start     fetches them, starts the node, waits until it serves
    python3 -m tools.cassandra status    exits 1 if it does not run
    python3 -m tools.cassandra stop
    python3 -m tools.cassandra kill      without warning
    python3 -m tools.cassandra halt      it keeps its connections and takes what is sent, but does nothing
    python3 -m tools.cassandra resume

Of the node in build/cassandra, or in another folder, `--home`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.cassandra.node import HOME, HOST, VERSION, Node, NodeError, check, fetch, say

COMMANDS = ("check", "fetch", "start", "status", "stop", "kill", "halt", "resume")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools.cassandra", description="A Cassandra server for tests.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--home", type=Path, default=HOME, help="its folder")
    parser.add_argument("--port", type=int, help="where it listens; a free port if not given")
    parser.add_argument("--secure", action="store_true", help="ask clients for a password and for TLS")
    options = parser.parse_args()
    node = Node(options.home, secure=options.secure)
    try:
        if options.command in ("check", "fetch"):
            check()
            if options.command == "fetch":
                fetch()
            return 0
        if options.command == "start":
            node.start(options.port)
        elif options.command != "status":
            getattr(node, options.command)()
    except NodeError as error:
        say(str(error))
        return 1
    pid = node.pid()
    if pid is None:
        say(f"there is no node running in {node.home}")
        return int(options.command == "status")
    say(f"Cassandra {VERSION} listens at {HOST}:{node.facts()['port']}, process {pid}, folder {node.home}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
