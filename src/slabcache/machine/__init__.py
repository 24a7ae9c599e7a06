"""The machine: what Cython cannot say, in C."""
