"""What is done with memory that isn't needed any more: Python's search for it, and what the C library does with it."""

from __future__ import annotations

import gc

KEPT = 1 << 20


def keep_freed_memory() -> None:
    """Have blocks of up to 1 MiB reused rather than given back to the kernel each time, and faulted in anew.

    glibc takes the largest block that was ever freed for its measure; this one is never touched, so it costs nothing.
    Other C libraries take no notice.
    """
    bytes(KEPT)


def start_without_collections() -> None:
    """Look for no garbage while a program is imported: that took a tenth of its start, and what is imported stays."""
    gc.disable()


def begin_collections() -> None:
    """Look for garbage from now on, but not among what there is by now."""
    gc.freeze()
    gc.enable()
