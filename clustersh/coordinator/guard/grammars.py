"""The parsers: tree-sitter's grammars, imported when the first text is parsed, so that only a coordinator pays for them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree


class Grammar(enum.Enum):
    BASH = "bash"
    POWERSHELL = "powershell"


def parse(text: str, grammar: Grammar) -> Tree:
    """Return the tree of *text*, also where parts of it are no such language."""
    from tree_sitter import Parser

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


def broken(root: Node) -> Iterator[Node]:
    """Yield the parts below *root* that could not be parsed."""
    todo = [root] if root.has_error else []
    while todo:
        node = todo.pop()
        if node.is_error or node.is_missing:
            yield node
        else:
            todo += [child for child in node.children if child.has_error or child.is_missing]
