"""Goes through a bash text as a shell would, and hands every command that it would run to the programs' rules.

Everything that may run counts as run: both sides of ``&&``, all branches, loops once for each known value, functions
where they are called. What nobody can know before (variables from outside, outputs) is a mark in the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .bombs import is_bomb, runs_itself
from .calls import RunText
from .case import Case
from .disks import check_written
from .expansion import Expansion
from .grammars import Grammar, broken_lines, parse, text_of
from .programs import call
from .state import State
from .values import FETCHED, LONGEST, UNKNOWN, bounded

if TYPE_CHECKING:
    from tree_sitter import Node

_MOST_TURNS = 8
_BACKQUOTED = re.compile(r"(?<!\\)`([^`]+)`")
_WORDS = (
    *("word", "string", "raw_string", "ansi_c_string", "translated_string", "concatenation", "number", "$"),
    *("simple_expansion", "expansion", "command_substitution", "process_substitution", "arithmetic_expansion"),
    *("brace_expression", "regex", "extglob_pattern", "=", "=="),
)


class Bash:
    """Judges bash texts for one *case*."""

    def __init__(self, case: Case, powershell: RunText) -> None:
        self.case = case
        self.run_powershell = powershell
        self._expand = Expansion(case, self._substituted, self._connected)

    def run_text(self, text: str, state: State, stdin: str = UNKNOWN) -> str:
        """Run *text* as a shell would that reads it; return what it prints."""
        if len(text) > LONGEST:
            self.case.doubts.append(text)
            return UNKNOWN
        self.case.spend(1 + len(text) // 16)
        with self.case.deeper():
            tree = parse(text, Grammar.BASH, self.case.time)
            self.case.doubts += broken_lines(tree.root_node, text)
            if runs_itself(tree.root_node):
                self.case.report("fork-bomb", [text])
            return self._run(tree.root_node, state, stdin)

    def run_words(self, words: Sequence[str], state: State, stdin: str = UNKNOWN) -> str:
        """Run the argument vector *words*."""
        return call(self, words, state, stdin)

    def _run(self, node: Node, state: State, stdin: str) -> str:
        self.case.spend()
        with self.case.deeper():
            match node.type:
                case "command":
                    return self._command(node, state, stdin)
                case "pipeline":
                    return self._pipeline(node.named_children, state, stdin)
                case "redirected_statement":
                    return self._redirected(node, state, stdin)
                case "subshell":
                    return self._run_all(node.named_children, state.copy(), stdin)
                case "for_statement":
                    return self._for(node, state, stdin)
                case "function_definition":
                    return self._define(node, state)
                case "variable_assignment":
                    self._assign(node, state)
                case "declaration_command" | "variable_assignments":
                    self._declare(node, state)
                case "unset_command":
                    for child in node.named_children:
                        state.set(text_of(child), "")
                case "while_statement" | "if_statement" | "case_statement" | "c_style_for_statement":
                    before = dict(state.variables)
                    printed = self._run_all(node.named_children, state, stdin)
                    state.merge_branches(before)
                    return printed
                case "comment" | "heredoc_body" | "heredoc_end" | "heredoc_start" | "file_descriptor":
                    pass
                case _ if node.type in _WORDS or node.type in ("test_command", "binary_expression"):
                    self._expand.inside(node, state)
                    if node.type.endswith("substitution"):
                        self._expand.words([node], state)
                case _:
                    return self._run_all(node.named_children, state, stdin)
        return ""

    def _run_all(self, nodes: Iterable[Node], state: State, stdin: str) -> str:
        return bounded("".join([self._run(flat, state, stdin) for node in nodes for flat in _flat(node)]))

    def _command(self, node: Node, state: State, stdin: str, more: Sequence[Node] = ()) -> str:
        """Run a simple command, with *more* words."""
        redirects = _redirects(node)
        stdin = self._inputs(redirects, state, stdin)
        names = [child for child in node.children if child.type == "command_name"]
        arguments = [child for child in node.children if child.type in _WORDS]
        words = self._expand.words([*names, *arguments, *more], state)
        for child in node.children:
            if child.type == "variable_assignment":
                self._assign(child, state)
        printed = self._called(words, state, stdin) if words else ""
        return self._outputs(redirects, state, printed)

    def _called(self, words: list[str], state: State, stdin: str) -> str:
        return self._call(words, state, stdin) if words[0] in state.functions else call(self, words, state, stdin)

    def _call(self, words: list[str], state: State, stdin: str) -> str:
        name, function = words[0], state.functions[words[0]]
        body = function.child_by_field_name("body")
        if function.id in state.running or body is None:
            return UNKNOWN
        if is_bomb(name, body):
            self.case.report("fork-bomb", [text_of(function)])
        inner = state.copy()
        inner.running, inner.arguments = (*state.running, function.id), words[1:]
        printed = self._run(body, inner, stdin)
        state.variables, state.functions, state.folder = inner.variables, inner.functions, inner.folder
        return self._outputs(_redirects(function), state, printed)

    def _pipeline(self, nodes: Iterable[Node], state: State, stdin: str) -> str:
        for node in nodes:
            for flat in _flat(node):
                stdin = self._run(flat, state.copy(), stdin)
        return stdin

    def _redirected(self, node: Node, state: State, stdin: str) -> str:
        redirects = _redirects(node)
        stdin = self._inputs(redirects, state, stdin)
        body = node.child_by_field_name("body")
        printed = ""
        if body is not None and body.type == "command":
            printed = self._command(body, state, stdin, _words_after(redirects))
        elif body is not None:
            printed = self._run(body, state, stdin)
        printed = self._outputs(redirects, state, printed)
        for redirect in redirects:
            if redirect.type == "heredoc_redirect":
                printed = self._after_heredoc(redirect, state, printed)
        return printed

    def _inputs(self, redirects: Iterable[Node], state: State, stdin: str) -> str:
        for redirect in redirects:
            stdin = self._input(redirect, state, stdin)
        return stdin

    def _outputs(self, redirects: Iterable[Node], state: State, printed: str) -> str:
        for redirect in redirects:
            printed = self._output(redirect, state, printed)
        return printed

    def _input(self, node: Node, state: State, stdin: str) -> str:
        """Return what a command reads from, by the redirection *node*."""
        if node.type == "herestring_redirect":
            return self._expand.text(node.named_children[-1], state) + "\n" if node.named_children else UNKNOWN
        if node.type == "heredoc_redirect":
            return self._heredoc(node, state)
        if any(child.type == "<" for child in node.children):
            return state.read(self._destination(node, state))
        return stdin

    def _heredoc(self, node: Node, state: State) -> str:
        start = next((text_of(child) for child in node.children if child.type == "heredoc_start"), "")
        for child in node.children:
            if child.type == "heredoc_body":
                literal = any(sign in start for sign in "'\"\\")
                if literal:
                    return text_of(child)
                for found in _BACKQUOTED.findall(text_of(child)):  # the grammar knows none there
                    self.run_text(found, state.copy())
                return self._expand.quoted(child, state, outer="")
        return ""

    def _after_heredoc(self, node: Node, state: State, printed: str) -> str:
        """Run what stands on the line of a here-document, which the grammar puts into its redirection."""
        for child in node.named_children:
            if child.type == "pipeline":
                printed = self._pipeline(child.named_children, state, printed)
            elif child.type in ("file_redirect", "herestring_redirect"):
                printed = self._output(child, state, printed)
            elif not child.type.startswith("heredoc") and child.type != "file_descriptor":
                printed += self._run(child, state, UNKNOWN)
        return printed

    def _output(self, node: Node, state: State, printed: str) -> str:
        """Have *printed* go where the redirection *node* sends it; return what is left."""
        signs = {child.type for child in node.children if not child.is_named}
        if node.type != "file_redirect" or not signs & {">", ">>", ">|", "&>", "&>>", "<>"}:
            return printed
        path = self._destination(node, state)
        check_written(self.case, path, printed, text_of(node))
        if any(child.type == "file_descriptor" and text_of(child) != "1" for child in node.children):
            return printed
        state.write(path, printed, append=bool(signs & {">>", "&>>"}))
        return ""

    def _destination(self, node: Node, state: State) -> str:
        found = node.children_by_field_name("destination")
        return self._expand.text(found[0], state) if found else UNKNOWN

    def _for(self, node: Node, state: State, stdin: str) -> str:
        variable = node.child_by_field_name("variable")
        body = node.child_by_field_name("body")
        values = self._expand.words(node.children_by_field_name("value"), state)
        if variable is None or body is None:
            return ""
        before = dict(state.variables)
        printed = ""
        for value in list(dict.fromkeys(values))[:_MOST_TURNS] or [UNKNOWN]:
            state.set(text_of(variable), value)
            printed += self._run(body, state, stdin)
        state.merge_branches(before)
        return bounded(printed)

    def _define(self, node: Node, state: State) -> str:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is not None and body is not None:
            state.functions[text_of(name)] = node
        return ""

    def _assign(self, node: Node, state: State) -> None:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None:
            return
        self._expand.inside(name, state)
        plain = name.type == "variable_name" and any(child.type == "=" for child in node.children)
        if value is None:
            text = ""
        elif value.type == "array":
            text = " ".join(self._expand.words(value.named_children, state))
        else:
            text = self._expand.text(value, state)
        if not plain:
            text = FETCHED if FETCHED in text else UNKNOWN
        state.set(text_of(name).partition("[")[0], text)

    def _declare(self, node: Node, state: State) -> None:
        for child in node.named_children:
            if child.type == "variable_assignment":
                self._assign(child, state)
            else:
                self._expand.words([child], state)

    def _substituted(self, node: Node, state: State) -> str:
        """Return what ``$(...)`` stands for."""
        with self.case.deeper():
            if any(child.type in ("<", "file_redirect") for child in node.children):
                return self._read_substitution(node, state)
            return self._run_all(node.named_children, state.copy(), UNKNOWN).rstrip("\n")

    def _read_substitution(self, node: Node, state: State) -> str:
        redirects = [child for child in node.named_children if child.type == "file_redirect"]
        return self._input(redirects[0], state, UNKNOWN) if redirects else UNKNOWN

    def _connected(self, node: Node, state: State) -> str:
        """Return the name of the file that ``<(...)`` stands for."""
        printed = self._run_all(node.named_children, state.copy(), UNKNOWN)
        return state.made_file(printed if text_of(node).startswith("<") else UNKNOWN)


def _redirects(node: Node) -> list[Node]:
    return [child for child in node.children if child.type.endswith("_redirect")]


def _words_after(redirects: Iterable[Node]) -> list[Node]:
    """Return the command's words that stand after its redirections, which the grammar puts into these."""
    found: list[Node] = []
    for redirect in redirects:
        words = [child for child in redirect.named_children if child.type in _WORDS]
        found += words[1:] if redirect.type == "file_redirect" else words
    return found


def _flat(node: Node) -> list[Node]:
    """Return the commands of a chain of ``&&`` and ``||``, which the grammar nests to the left, in their order."""
    found: list[Node] = []
    while node.type == "list" and node.named_child_count:
        found += reversed(node.named_children[1:])
        node = node.named_children[0]
    return [node, *reversed(found)]
