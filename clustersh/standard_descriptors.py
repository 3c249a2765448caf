"""Descriptors 0, 1 and 2, which a caller may have closed."""

import os


def open_standard_descriptors() -> None:
    """See that they are open: else the first socket would get such a number, and our output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
