"""A cache before a store: what is below `WriteBehindCache`."""
