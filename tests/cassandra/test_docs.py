"""The program of docs/store.md, with the lines that switch it to Cassandra."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np

from support.cassandra_store import KEYSPACE, MakeStore
from tools.cassandra.node import Node

PAGE = Path(__file__).parent.parent.parent / "docs" / "store.md"


def test_the_working_program_on_cassandra(server: Node, make_store: MakeStore) -> None:
    page = PAGE.read_text()
    address = server.address()
    program, lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    here = {
        '["10.0.0.1", "10.0.0.2"]': f"'{address['hosts']}', 'port': {address['port']}",
        '"keyspace": "app"': f'"keyspace": "{KEYSPACE}"',
        "replication=3": "replication=1",
    }
    for there, replaced in here.items():
        assert there in lines
        lines = lines.replace(there, replaced)
    importing, *making = [f">>> {line}\n" for line in lines.splitlines() if line]
    program = re.sub(r">>> from slabcache.stores import SQLiteStore\n", importing, program)
    program = re.sub(r">>> store = SQLiteStore.*\n", "".join(making), program)
    assert "SQLite" not in program
    test = doctest.DocTestParser().get_doctest(program, {}, "store.md", str(PAGE), 0)
    assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    store = make_store(test.globs["KEY"], test.globs["VALUE"], table="read_states")
    assert store.load_many(np.array([(42, 7)], store.key_dtype))[0].tolist() == [(1001, 1, 0)]
