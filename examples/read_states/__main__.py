"""`python -m read_states serve`: one instance of the service; `fleet`: many, behind a gateway."""

from __future__ import annotations

import argparse
import sys

from read_states import service
from read_states.fleet import machine

parser = argparse.ArgumentParser(prog="python -m read_states", description="Read States on slabcache")
commands = parser.add_subparsers(required=True, metavar="COMMAND")
command = commands.add_parser("serve", help="serve read states over HTTP")
service.add_arguments(command)
command.set_defaults(run=service.serve)
command = commands.add_parser("fleet", help="serve them by many instances on this machine")
machine.add_arguments(command)
command.set_defaults(run=machine.run)
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
