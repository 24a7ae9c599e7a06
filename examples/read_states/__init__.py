"""Read States: what each user has read of each channel, served from a cache before a database.

bodies.py    what goes over the wire
rows.py      what a record is, and which database holds it
states.py    the operations, on slabcache
twin.py      the same on an OrderedDict of objects, to compare with
app.py       the HTTP and WebSocket interface
limits.py    what one connection may take of the process
logs.py      what is logged, and how often
service.py   a process that serves it, and how it ends
options.py   numbers of its command line

That is the service, in the order in which to read it. What is built on it:

fleet/       many such processes, each with users of its own
load/        the load on it and on its twin, and what is measured: `python -m read_states.load`
report/      the page that says how they fared

These last two measure with the package `measuring`, at the top of the repository; the service does without.
"""
