"""`python -m read_states serve`: one instance of the service."""

from __future__ import annotations

import argparse
import sys

from read_states import service

parser = argparse.ArgumentParser(prog="python -m read_states", description="Read States on slabcache")
commands = parser.add_subparsers(required=True, metavar="COMMAND")
command = commands.add_parser("serve", help="serve read states over HTTP")
service.add_arguments(command)
command.set_defaults(run=service.serve)
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
