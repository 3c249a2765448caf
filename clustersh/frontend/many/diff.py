"""One output against another, as a unified diff."""

from __future__ import annotations

import difflib

MAX_LINES = 20_000
"""Comparing takes time that grows with the square of this."""


def unified(before: bytes, after: bytes, names: tuple[str, str]) -> bytes:
    """Return the diff between two outputs, called *names* in it; each line of it is ended."""
    if b"\0" in before or b"\0" in after:
        return f"binary output of {len(after)} bytes, the others' are {len(before)}\n".encode()
    old, new = _lines(before), _lines(after)
    if max(len(old), len(new)) > MAX_LINES:
        return f"{len(new)} lines, too many to compare with {len(old)}\n".encode()
    fromfile, tofile = (name.encode() for name in names)
    found = difflib.diff_bytes(difflib.unified_diff, old, new, fromfile, tofile)
    return b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of output\n" for line in found)


def _lines(text: bytes) -> list[bytes]:
    # Not bytes.splitlines: a carriage return ends no line.
    return [line + b"\n" for line in text.split(b"\n")[:-1]] + ([last] if (last := text.rpartition(b"\n")[2]) else [])
