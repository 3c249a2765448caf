"""The parsers: tree-sitter's grammars, imported with the first text, so that only a coordinator pays for them."""

from __future__ import annotations

import enum
import re
import time
from functools import cache
from typing import TYPE_CHECKING

from .case import Time, TooMuch

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree


_SHORT = 256
"""Bytes that take little time whatever they are."""
_MOST_PIPES = 1000
"""In one pipeline: more take the parser's time by their square, where nothing can stop it."""
_BACKQUOTES = re.compile(r"`[ \t]+(?=`)")
_BODY = re.compile(r"""(?<!<)(<<-?[ \t]*(?:'[^'\n]*'|"[^"\n]*"|\\?[\w.-]+)(?:(?!<<)[^\n])*\n)(?=[ \t]*(?:\\|\$'))""")
"""The line that begins a here-document whose first line begins with a backslash or with ``$'``."""
_STAND_INS = (
    (re.compile("[\u0080-\u07ff]"), "§"),
    (re.compile("[\u0800-\uffff]"), "§."),
    (re.compile("[^\0-\uffff]"), "§§"),
)
"""For characters beyond ASCII, what takes as many bytes and is part of a word as well."""


class Grammar(enum.Enum):
    BASH = "bash"
    POWERSHELL = "powershell"


def parse(text: str, grammar: Grammar, left: Time) -> Tree:
    """Return the tree of *text*, also where parts of it are no such language. Raises TooMuch: no time is *left*."""
    if left.left_s <= 0:
        raise TooMuch
    from tree_sitter import Parser

    if grammar is Grammar.BASH:
        # What the grammar misreads, in other words: backquotes with only blanks between them are one sign to it ($_ is
        # nothing), and a here-document that begins so is none.
        text = _BODY.sub(r"\1true; ", _BACKQUOTES.sub("` $_ ", text))
    content = text.encode("utf-8", "replace")
    shown = bytearray(_without_what_crashes(content) if grammar is Grammar.BASH else content)
    if len(content) > _SHORT:
        _try(bytes(shown), grammar, left)
    tree = Parser(_language(grammar)).parse(shown)
    shown[:] = content  # nodes take their texts from there
    return tree


def _without_what_crashes(content: bytes) -> bytes:
    """Return *content* as bash's scanner may see it.

    It looks characters up in C's tables, which end at 255: what is far beyond them can crash it (``{`` before U+9CEC7
    does). A shell knows ASCII only where it looks for signs and names; so all else is one sign.
    """
    if content.isascii():
        return content
    text = content.decode()
    for some, stand_in in _STAND_INS:
        text = some.sub(stand_in, text)
    return text.encode()


def _try(content: bytes, grammar: Grammar, left: Time) -> None:
    """Parse *content* for its time alone: what can be stopped has to read by a call-back, and its tree has no text."""
    from tree_sitter import Parser

    if _has_long_pipeline(content):
        raise TooMuch
    begun = time.thread_time()
    end = begun + left.left_s
    try:
        Parser(_language(grammar)).parse(
            lambda offset, _: content[offset:],
            encoding="utf8",
            progress_callback=lambda _offset, _error: time.thread_time() > end,
        )
    except ValueError as error:
        raise TooMuch from error
    finally:
        left.left_s -= time.thread_time() - begun


def _has_long_pipeline(content: bytes) -> bool:
    pipes = 0
    for line in content.split(b"\n"):
        pipes += line.count(b"|")
        if pipes > _MOST_PIPES:
            return True
        words = line.strip()
        if words and not words.startswith(b"#") and not words.endswith((b"|", b"|&", b"\\")):
            pipes = 0
    return False


@cache
def _language(grammar: Grammar) -> Language:
    from tree_sitter import Language

    if grammar is Grammar.BASH:
        import tree_sitter_bash

        return Language(tree_sitter_bash.language())
    import tree_sitter_powershell

    return Language(tree_sitter_powershell.language())


def text_of(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def broken_lines(root: Node, text: str) -> list[str]:
    """Return the lines of *text* that could not be parsed, as one text; none where all could."""
    if not root.has_error:
        return []
    numbers, todo = set[int](), [root]
    while todo:
        node = todo.pop()
        if node.is_error or node.is_missing:
            numbers.update(range(node.start_point[0], node.end_point[0] + 1))
        else:
            todo += [child for child in node.children if child.has_error or child.is_missing]
    return ["\n".join(line for number, line in enumerate(text.split("\n")) if number in numbers)]
