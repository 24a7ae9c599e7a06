"""What it takes to measure, for all who do: bench, demo, faults, the load on the example, and tests.

One file for one thing, none of which knows who uses it:

    turns.py        subjects that take turns, so that a slow minute of the machine falls on all of them
    processes.py    work in a fresh process
    collector.py    when the garbage collector ran
    memory.py       bytes of this process
    ports.py        a free port
    machine.py      what a figure was measured on
    formats.py      durations for people
    pages.py        tables in Markdown, and their places on a page
    palette.py      the colours of pictures, and how their axes look
    read_states.py  the record that is cached everywhere, as a dtype and as an object
    caches.py       caches of it, as a service would use them
    stores.py       a store that keeps nothing
"""
