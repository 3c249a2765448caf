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


class Grammar(enum.Enum):
    BASH = "bash"
    POWERSHELL = "powershell"


def parse(text: str, grammar: Grammar, left: Time) -> Tree:
    """Return the tree of *text*, also where parts of it are no such language. Raises TooMuch: no time is *left*."""
    from tree_sitter import Parser

    if grammar is Grammar.BASH:
        # What the grammar misreads, in other words: backquotes with only blanks between them are one sign to it ($_ is
        # nothing), and a here-document that begins so is none.
        text = _BODY.sub(r"\1true; ", _BACKQUOTES.sub("` $_ ", text))
    content = text.encode("utf-8", "replace")
    if len(content) > _SHORT:
        _try(content, grammar, left)
    return Parser(_language(grammar)).parse(content)


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
