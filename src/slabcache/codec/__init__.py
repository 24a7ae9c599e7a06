"""Between Python's objects and packed bytes."""
