"""Text from elsewhere, made safe to show: nothing in it can steer a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Return *text* on one line, with control characters, escape sequences and direction marks made visible."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def display_width(text: str) -> int:
    """Return how many terminal columns *text* takes."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """Return *text* in at most *width* columns (1 or more), its end replaced by ``…`` if need be."""
    if display_width(text) <= width:
        return text
    kept, room = "", width - 1
    for char in text:
        room -= _char_width(char)
        if room < 0:
            break
        kept += char
    return kept + "…"
