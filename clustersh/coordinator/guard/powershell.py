"""Goes through a PowerShell text, and hands every command that it would run to the rules.

As in a shell everything that may run counts as run: all branches, script blocks wherever they stand, functions where
they are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from . import cmdlets
from .case import Case
from .downloads import is_plain
from .grammars import Grammar, broken_lines, parse, text_of
from .state import State
from .values import FETCHED, LONGEST, UNKNOWN, bounded
from .windows_calls import Shells
from .windows_paths import PLACES

if TYPE_CHECKING:
    from tree_sitter import Node

_VARIABLE = re.compile(r"\$\{([^}]*)\}|\$((?:env:|script:|global:|local:)?\w+)", re.IGNORECASE)
_SIGNS = {"n": "\n", "r": "\r", "t": "\t", "0": ""}
_ESCAPED = re.compile(r"`(.)|\"(\")", re.DOTALL)
_WHOLE = ("command", "function_statement", "expandable_string_literal", "expandable_here_string_literal")
_FETCHING = ("downloadstring", "downloaddata", "getstringasync", "downloadfile")


class PowerShell:
    """Judges PowerShell texts for one *case*."""

    def __init__(self, case: Case, shells: Shells) -> None:
        self.case = case
        self.shells = shells

    def run_text(self, text: str, state: State, stdin: str = UNKNOWN) -> str:
        """Run *text* as PowerShell would; return what it prints."""
        if len(text) > LONGEST:
            self.case.doubts.append(text)
            return UNKNOWN
        self.case.spend(1 + len(text) // 16)
        with self.case.deeper():
            tree = parse(text, Grammar.POWERSHELL, self.case.time)
            self.case.doubts += broken_lines(tree.root_node, text)
            if text.lstrip(UNKNOWN).startswith(FETCHED):
                self.case.report_fetched([text])
            return self._run(tree.root_node, state, stdin)

    def run_words(self, words: Sequence[str], state: State, stdin: str = UNKNOWN) -> str:
        """Run the program words[0] with the rest."""
        if words and (body := state.functions.get(words[0].lower())) is not None:
            return self._call(body, state, stdin)
        return cmdlets.call(self, words, state, stdin)

    def _call(self, body: Node, state: State, stdin: str) -> str:
        if body.id in state.running:
            return UNKNOWN
        inner = state.copy()
        inner.running = (*state.running, body.id)
        with self.case.deeper():
            return self._run_all(body.named_children, inner, stdin)

    def _run(self, node: Node, state: State, stdin: str) -> str:
        """Run what *node* says; return what it prints, which is also what it stands for where it is a value."""
        node = _innermost(node)
        self.case.spend()
        with self.case.deeper():
            match node.type:
                case "pipeline_chain":
                    return self._pipeline(node, state, stdin)
                case "command":
                    return self._command(node, state, stdin)
                case "assignment_expression":
                    return self._assign(node, state)
                case "function_statement":
                    name = next((text_of(child) for child in node.children if child.type == "function_name"), "")
                    state.functions[name.lower()] = node
                    return ""
                case "invokation_expression":
                    return self._invoke(node, state, stdin)
                case "verbatim_string_characters":
                    return text_of(node)[1:-1].replace("''", "'")
                case "verbatim_here_string_characters":
                    return _here_text(node)
                case "expandable_string_literal":
                    return self._expand(node, state, 1)
                case "expandable_here_string_literal":
                    return "\n".join(self._expand(node, state, 2).splitlines()[1:-1])
                case "variable":
                    return expanded(text_of(node), state)
                case "generic_token" | "command_name" | "path_command_name_token" | "decimal_integer_literal":
                    return expanded(text_of(node), state)
                case "comment" | "command_argument_sep" | "type_literal" | "function_name":
                    return ""
                case _:
                    return self._run_all(node.named_children, state, stdin)

    def _expand(self, node: Node, state: State, quote: int) -> str:
        """Return what stands in the string *node*, between signs of *quote* bytes each."""
        source, at, parts = node.text or b"", quote, list[str]()
        for child in node.named_children:
            parts.append(_unescaped(source[at : child.start_byte - node.start_byte].decode("utf-8", "replace")))
            parts.append(self._run(child, state, UNKNOWN))
            at = child.end_byte - node.start_byte
        parts.append(_unescaped(source[at : max(at, len(source) - quote)].decode("utf-8", "replace")))
        return bounded("".join(parts))

    def _run_all(self, nodes: Iterable[Node], state: State, stdin: str) -> str:
        return bounded("\n".join(filter(None, [self._run(node, state, stdin) for node in nodes])))

    def _pipeline(self, node: Node, state: State, stdin: str) -> str:
        for child in node.named_children:
            stdin = self._run(child, state, stdin)
        return stdin

    def _assign(self, node: Node, state: State) -> str:
        value = node.child_by_field_name("value")
        text = self._run(value, state, UNKNOWN) if value is not None else UNKNOWN
        name = text_of(node.named_children[0]).strip().lstrip("$").lower()
        state.set(name, text or UNKNOWN)
        return ""

    def _invoke(self, node: Node, state: State, stdin: str) -> str:
        """``value.Method(...)`` and ``[type]::Method(...)``."""
        printed = self._run_all(node.named_children, state, stdin)
        return self._result(node, _method(node), printed)

    def _result(self, node: Node, method: str, printed: str) -> str:
        """Return what *method* makes of *printed*, its object and its arguments: what was fetched stays fetched."""
        if method in _FETCHING and any(is_plain(url) for url in re.findall(r"\w+://\S+", printed)):
            self.case.fetched = text_of(node)
            return FETCHED
        return FETCHED if FETCHED in printed else printed if method in ("create", "tostring") else UNKNOWN

    def _command(self, node: Node, state: State, stdin: str) -> str:
        name = node.child_by_field_name("command_name")
        elements = node.child_by_field_name("command_elements")
        words, target = [self._run(name, state, stdin)] if name is not None else [], ""
        method = ""
        for child in elements.named_children if elements is not None else ():
            if child.type == "argument_list":
                words[-1:] = [self._result(node, method, self._run(child, state, UNKNOWN))]
            elif child.type == "redirection":
                target = self._run_all(child.named_children, state, UNKNOWN)
            elif child.type == "command_parameter":
                words.append(text_of(child))
            elif child.type != "command_argument_sep":
                words += self._argument(child, state, stdin)
                method = _method(child)
        printed = self.run_words(words, state, stdin)
        if target:
            state.write(target, printed)
            return ""
        return printed

    def _argument(self, node: Node, state: State, stdin: str) -> list[str]:
        text = self._run(node, state, stdin)
        if node.has_error:  # such as $env:TEMP\\a.txt, which the grammar doesn't know
            return [expanded(text_of(node), state)]
        if node.type == "generic_token":
            return [part for part in text.split(",") if part]
        return text.split("\n") if node.named_child_count > 1 else [text]


def expanded(text: str, state: State) -> str:
    """Return what stands for *text* that may hold variables."""

    def value(found: re.Match[str]) -> str:
        name = (found[1] or found[2]).lower()
        return state.variables.get(name) or PLACES.get(name, UNKNOWN)

    return bounded(_unescaped(_VARIABLE.sub(value, text)))


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _SIGNS.get(found[1], found[1]) if found[1] else found[2], text)


def _method(node: Node) -> str:
    """Return the name of the member that *node* is about, in lower case, or ""."""
    inner = _innermost(node)
    return next((text_of(child).lower() for child in inner.named_children if child.type == "member_name"), "")


def _here_text(node: Node) -> str:
    return "\n".join(text_of(node).splitlines()[1:-1])


def _innermost(node: Node) -> Node:
    """Return what *node* is about: the grammar has a chain of a dozen kinds of expressions around each value."""
    while node.named_child_count == 1 and node.type not in (
        "command",
        "function_statement",
        "expandable_string_literal",
    ):
        if node.type == "pipeline_chain" or node.named_children[0].type == "command_argument_sep":
            break
        node = node.named_children[0]
    return node
