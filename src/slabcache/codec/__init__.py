"""The codec: between Python's objects and the packed bytes in an arena. It takes no lock and knows no cache.

    dtypes        from a dtype to the fields of a packed record; what is refused, and what to use instead
    conversions   what numpy and Python convert, without loss
    layout        packed rows as the user's dtype lays them out
    record        `Schema`, which encodes and decodes, and `Record`, which look-ups return
    rows          from the arguments of a batch to arrays of packed rows, and back

Encoding may run code of the user's, so it comes before a lock is taken.
"""
