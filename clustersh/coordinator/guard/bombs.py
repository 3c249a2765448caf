"""Fork bombs: a function, or a script, that starts itself more than once whenever it runs, without waiting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .grammars import text_of

if TYPE_CHECKING:
    from tree_sitter import Node

_ALWAYS_RUN = (
    "compound_statement",
    "subshell",
    "redirected_statement",
    "pipeline",
    "negated_command",
    "program",
    "list",
)
_ENDS = re.compile(rb"\b(return|exit)\b")
_ITSELF = ("$0", '"$0"', "./$0", '"./$0"', '"${0}"', "${0}")


def is_bomb(name: str, body: Node) -> bool:
    """Whether the function *name* starts itself twice, in a pipe or in the background, whatever happens."""
    return _spawns((name,), body)


def runs_itself(script: Node) -> bool:
    """Whether a whole text does that with ``$0``."""
    return b"$0" in (script.text or b"") and _spawns(_ITSELF, script)


def _spawns(names: tuple[str, ...], body: Node) -> bool:
    if _ENDS.search(body.text or b""):
        return False
    calls, at_once, todo = 0, False, [body]
    while todo:
        node = todo.pop()
        if node.type == "command":
            calls += any(text_of(child) in names for child in node.children if child.type == "command_name")
        elif node.type in _ALWAYS_RUN:
            at_once = at_once or node.type == "pipeline" or any(child.type == "&" for child in node.children)
            todo += node.named_children[:1] if node.type == "list" else node.named_children
    return calls >= 2 and at_once
