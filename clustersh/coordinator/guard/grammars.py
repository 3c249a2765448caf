"""The parsers: tree-sitter's grammars, imported with the first text, so that only a coordinator pays for them."""

from __future__ import annotations

import enum
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree


_BACKQUOTES = re.compile(r"`[ \t]+(?=`)")


class Grammar(enum.Enum):
    BASH = "bash"
    POWERSHELL = "powershell"


def parse(text: str, grammar: Grammar) -> Tree:
    """Return the tree of *text*, also where parts of it are no such language.

    Its size has to be bounded: some nonsense takes time by its square.
    """
    from tree_sitter import Parser

    if grammar is Grammar.BASH:
        text = _BACKQUOTES.sub(
            "` $_ ", text
        )  # the grammar takes two with only blanks between them for one sign; $_ is nothing
    return Parser(_language(grammar)).parse(text.encode("utf-8", "replace"))


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
