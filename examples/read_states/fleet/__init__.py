"""Many instances, each with users of its own, behind a stock nginx.

ring.py      which instance a user belongs to: the consistent hashing of nginx
member.py    an instance that serves its own users alone, passes mentions on, and hands users over
change.py    a change of the ring, in two steps
gateway.py   nginx: its configuration, its process
machine.py   all of it on one machine: `python -m read_states fleet`
"""
