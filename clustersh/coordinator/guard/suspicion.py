"""A look at text that can't be parsed: does it name a dangerous program, with what makes it dangerous?"""

from __future__ import annotations

import re

_WORD = r"(?<![\w.=-])"
_SUSPICIOUS = re.compile(
    rf"{_WORD}(?:"
    r"(?:mkfs(?:\.\w+)?|mkswap|wipefs|blkdiscard|shutdown|reboot|poweroff|halt)(?![\w.=-])"
    r")[^\n]*",
)


def suspicious(text: str) -> str:
    """Return the words of *text* that make it suspicious, or ""."""
    found = _SUSPICIOUS.search(text)
    return found[0] if found else ""
