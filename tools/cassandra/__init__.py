"""A real Cassandra server for tests, faults and the fleet: a node on loopback, of jars that Maven fetches.

node.py        the server: fetched, started, stopped, killed, halted, and where it listens
__main__.py    the same as commands: `python3 -m tools.cassandra`
"""
