"""From the parts of a word in bash's tree to the words that the shell makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .case import Case
from .grammars import text_of
from .state import State
from .values import FETCHED, HOME, UNKNOWN, alternatives, ansi_quoted, bounded, double_quoted, joined, unquoted

if TYPE_CHECKING:
    from tree_sitter import Node

Substitute = Callable[["Node", State], str]
"""Runs the commands in ``$(...)`` or in ``<(...)``; returns what they print."""
_EACH = re.compile(r'"\$(@|\{@\}|\{\w+\[@\]\})"')
"""What is many words although it is quoted."""
_TILDE = re.compile(r"~[\w.-]*(?=/|\Z)")


class Expansion:
    """Expands words; what they run is handed to *substitute*, process substitutions to *connect*."""

    def __init__(self, case: Case, substitute: Substitute, connect: Substitute) -> None:
        self._case = case
        self._substitute = substitute
        self._connect = connect

    def words(self, nodes: Sequence[Node], state: State) -> list[str]:
        """Return the words of *nodes*. A sign before a string, as in ``$"..."``, is part of that."""
        found = list[str]()
        for number, node in enumerate(nodes):
            if node.type == "$" and number + 1 < len(nodes) and nodes[number + 1].start_byte == node.end_byte:
                continue
            found += joined(list(self._pieces(node, state, first=True)))
            self._case.spend(len(found) // 8)
        return found

    def text(self, node: Node, state: State) -> str:
        """Return what *node* stands for where nothing is split, as in an assignment."""
        return bounded(alternatives("".join(text for text, _ in self._pieces(node, state, first=True)))[0])

    def _pieces(self, node: Node, state: State, first: bool = False) -> Iterator[tuple[str, bool]]:
        """Yield the texts that *node* stands for, each with whether blanks split it."""
        self._case.spend()
        match node.type:
            case "string" | "translated_string":
                yield self.quoted(node, state), bool(_EACH.fullmatch(text_of(node)))
            case "raw_string":
                yield text_of(node)[1:-1], False
            case "ansi_c_string":
                yield ansi_quoted(text_of(node)[2:-1]), False
            case "concatenation" | "command_name":
                with self._case.deeper():
                    for number, child in enumerate(node.children):
                        yield from self._pieces(child, state, first and number == 0)
            case "simple_expansion" | "expansion":
                yield self._parameter(node, state), True
            case "command_substitution":
                yield self._substitute(node, state), True
            case "process_substitution":
                yield self._connect(node, state), False
            case "arithmetic_expansion" | "brace_expression":
                self.inside(node, state)
                yield UNKNOWN, False
            case _:
                text = text_of(node)
                if first and (tilde := _TILDE.match(text)):
                    yield HOME, False
                    text = text[tilde.end() :]
                yield unquoted(text), False

    def quoted(self, node: Node, state: State, outer: str = '"') -> str:
        """Return what stands between double quotes, or in a here-document: *node* without its *outer* signs."""
        source, base = node.text or b"", node.start_byte
        at, end = len(outer), len(source) - len(outer)
        parts = list[str]()
        with self._case.deeper():
            for child in node.named_children:
                if child.type in ("string_content", "heredoc_content"):
                    continue
                parts.append(double_quoted(source[at : child.start_byte - base].decode("utf-8", "replace")))
                parts.extend(text for text, _ in self._pieces(child, state))
                at = child.end_byte - base
        parts.append(double_quoted(source[at : max(at, end)].decode("utf-8", "replace")))
        return bounded("".join(parts))

    def _parameter(self, node: Node, state: State) -> str:
        """Return the value of ``$x`` or ``${x...}``."""
        self.inside(node, state)
        children = node.children[1:]
        if not children or children[0].type not in ("variable_name", "special_variable_name", "subscript"):
            return UNKNOWN
        value = _value(text_of(children[0]).removesuffix("[@]").removesuffix("[*]"), state)
        self._case.spend(len(value) // 16)
        operator = text_of(children[1]) if len(children) > 1 else "}"
        if operator in ("}", ":?", "?"):
            return value
        default = self.text(children[2], state) if len(children) > 2 and children[2].type != "}" else ""
        if operator in (":-", "-", ":=", "="):
            value = _or_default(value, default)
            if operator in (":=", "="):
                state.set(text_of(children[0]), value)
            return value
        if operator in (":+", "+") and UNKNOWN not in value:
            return default if value else ""
        return FETCHED if FETCHED in value else UNKNOWN

    def inside(self, node: Node, state: State) -> None:
        """Run the substitutions that stand somewhere in *node*."""
        todo = [child for child in node.named_children if child.named_child_count]
        while todo:
            child = todo.pop()
            self._case.spend()
            if child.type == "command_substitution":
                self._substitute(child, state)
            elif child.type == "process_substitution":
                self._connect(child, state)
            else:
                todo += child.named_children


def _value(name: str, state: State) -> str:
    """Return the value of the parameter *name*."""
    if name in state.variables:
        return state.variables[name]
    if name.lower() == "sudo":
        return ""
    if name == "PWD":
        return state.folder
    if state.arguments is not None:
        if name in ("@", "*"):
            return " ".join(state.arguments)
        if name.isdigit() and int(name[:6]) > 0:
            return state.arguments[int(name) - 1] if int(name[:6]) <= len(state.arguments) else ""
    return UNKNOWN


def _or_default(value: str, default: str) -> str:
    """Return *value*, or *default* where it is empty, and where nobody knows: it may be."""
    if value == UNKNOWN:
        return default or UNKNOWN
    return value or default
