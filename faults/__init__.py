"""What becomes of acknowledged writes when something breaks: ``make faults``, or ``python -m faults``.

Each fault is a real one where there can be one: another process holds the lock, the disk takes no more, the
process is killed. Meanwhile a writer goes on and keeps the truth, readers compare what they read with it, and
in the end the truth is compared with what the store has, over a connection of its own. The table goes to
docs/faults.md.

    load.py       the writer, the readers, the truth
    sqlite.py     SQLite's file: locked, without space, removed
    cassandra.py  a server of Cassandra: killed, standing still
    stores.py     a store that fails, blocks, refuses, repeats
    process.py    the process itself is killed
    report.py     the table and its page
"""
