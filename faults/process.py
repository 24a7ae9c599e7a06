"""Faults of the process itself."""

FAULTS = ()
