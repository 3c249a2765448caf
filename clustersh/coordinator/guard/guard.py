"""Judges commands by the rules, with the actions that the configuration gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ...wire.jobs import Command
from .case import Case, Time, TooMuch
from .engines import Engines
from .grammars import Grammar
from .shells import is_shell_script
from .suspicion import suspicions
from .values import HOME, UNKNOWN
from .verdicts import RULES, UNPARSABLE, Action, Finding

_ALLOW = "allow"
_BASH_SYSTEMS = ("linux", "darwin", "freebsd", "openbsd", "netbsd")
_EXECUTORS = {"bash": Grammar.BASH, "powershell": Grammar.POWERSHELL}
_MOST_UNPARSED = 20_000
"""Words of suspicious lines that are looked at where there is no parser at hand."""


class _Found(NamedTuple):
    """That something breaks *rule*; what can't be parsed is suspected of breaking *suspected*."""

    rule: str
    where: str
    suspected: str


class Guard:
    """Judges commands; *actions* has ``allow``, ``block`` or ``deny`` by a rule's name, in place of its own action."""

    def __init__(self, actions: Mapping[str, str] = MappingProxyType({})) -> None:
        if unknown := sorted(set(actions) - set(RULES)):
            raise ValueError(f"no rule is called {unknown[0]!r}")
        if wrong := sorted(set(actions.values()) - {_ALLOW, *Action}):
            raise ValueError(f"{wrong[0]!r} is none of allow, block and deny")
        self._actions = {name: str(rule.action) for name, rule in RULES.items()} | dict(actions)

    def judge(
        self, command: Command, script: bytes | None, platform: str, folder: str = "", executor: str = ""
    ) -> tuple[Finding, ...]:
        """Return what speaks against *command* in *folder* of a machine of *platform*, worst first; nothing: it passes.

        *executor* is what runs commands there, where that is known: bash, powershell, or another.
        *script* is the content of the command's script, where it has one. Pure, and bounded in time and memory: a text
        that is longer than 128 KiB, or that takes too many steps or too much of the parsers' time, is looked at as one
        that can't be parsed. That is some seconds at worst, and the parsers are C code: a coordinator has its worker
        call this (judging.py).
        """
        where = _known(folder)
        judged = (_judged(command, script, grammar, where) for grammar in _grammars(platform, executor))
        found = dict.fromkeys(each for some in judged for each in some)
        return tuple(sorted(self._findings(found), key=lambda finding: finding.action != Action.DENY))

    def suspect(self, command: Command, script: bytes | None, platform: str, executor: str = "") -> tuple[Finding, ...]:
        """Return what speaks against *command* where it can't be parsed: no parser ever sees it.

        In time that grows with its length: a fraction of a second for the longest script.
        """
        grammars = _grammars(platform, executor)
        found = dict.fromkeys(each for grammar in grammars for each in _suspected(command, script, grammar))
        return tuple(self._findings(found))

    def _findings(self, found: Iterable[_Found]) -> Iterable[Finding]:
        for each in found:
            action = self._actions[each.rule]
            if _ALLOW not in (action, self._actions[each.suspected]):
                yield Finding(each.rule, Action(action), RULES[each.rule].why, each.where)


def _grammars(platform: str, executor: str) -> tuple[Grammar, ...]:
    """Return all that commands may be read as: the system's own programs are run by any shell."""
    system = platform.partition("/")[0]
    of_system = Grammar.POWERSHELL if system == "windows" else Grammar.BASH if system in _BASH_SYSTEMS else None
    of_executor = _EXECUTORS.get(executor) if executor else of_system
    return (of_system,) if of_system is not None and of_system is of_executor else (Grammar.BASH, Grammar.POWERSHELL)


def _known(folder: str) -> str:
    """Return *folder* as a shell knows where it is: a relative one, or none, may be anywhere."""
    if folder.startswith("~"):
        return HOME + folder[1:] if folder[1:2] in ("", "/", "\\") else UNKNOWN
    return folder if folder.startswith("/") or folder[1:2] == ":" else UNKNOWN


def _judged(command: Command, script: bytes | None, grammar: Grammar, folder: str) -> tuple[_Found, ...]:
    if command.argv is not None:
        return _judge(command.argv, grammar, folder)
    return _judge(_shell_text(command, script, grammar), grammar, folder)


def _suspected(command: Command, script: bytes | None, grammar: Grammar) -> Iterable[_Found]:
    text = " ".join(command.argv) if command.argv is not None else _shell_text(command, script, grammar)
    for rule, where in suspicions(text, grammar, Time(0), _MOST_UNPARSED):
        yield _Found(UNPARSABLE, where, rule)


def _shell_text(command: Command, script: bytes | None, grammar: Grammar) -> str:
    """Return what a shell would read; nothing of a script that is another program's."""
    if command.script is None:
        return command.shell or ""
    text = (script or b"").decode("utf-8", "replace")
    shell = grammar is Grammar.POWERSHELL or is_shell_script(text.partition("\n")[0])
    return text if shell else ""


def _judge(what: str | tuple[str, ...], grammar: Grammar, folder: str) -> tuple[_Found, ...]:
    case = Case()
    try:
        Engines(case).run(what, grammar, UNKNOWN, folder)
    except (TooMuch, RecursionError):
        case.doubts.append(what if isinstance(what, str) else " ".join(what))
    found = [_Found(rule, where, rule) for rule, where in case.found]
    known = {each.rule for each in found}
    for text in case.doubts:
        for rule, where in suspicions(text, grammar):
            if rule not in known:
                known.add(rule)
                found.append(_Found(UNPARSABLE, where, rule))
    return tuple(found)
