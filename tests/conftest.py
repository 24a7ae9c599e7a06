"""Hypothesis profiles, chosen by --hypothesis-profile: `quick` (the default), `ci`, `thorough`.

No profile has a deadline: a test of this suite never fails because the machine is slow.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("quick", max_examples=60, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("ci", settings.get_profile("quick"), max_examples=200)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=3000)
settings.load_profile("quick")

# The tests in cassandra/ need a server, those in read_states/ what the example needs:
# `make test-cassandra` and `make test-read-states` name them. A platform without fork has
# nothing to test in test_fork.py.
collect_ignore = ["cassandra", "read_states"]
if not hasattr(os, "fork"):
    collect_ignore.append("test_fork.py")

# Where allocations fail, the interpreter itself may be left in disorder, above all without the GIL. So these
# come last, after all that would meet it.
WITHOUT_MEMORY = {"test_memory_error", "test_no_memory", "test_no_memory_in_calls"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem in WITHOUT_MEMORY)
