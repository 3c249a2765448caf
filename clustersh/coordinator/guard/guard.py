"""Judges commands by the rules, with the actions that the configuration gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from ...wire.jobs import Command
from .bash import Bash
from .case import Case, TooMuch
from .grammars import Grammar
from .state import State
from .suspicion import suspicious
from .verdicts import RULES, Action, Finding

Found = tuple[tuple[str, str], ...]
_ALLOW = "allow"
_REMEMBERED = 128
_LONGEST_REMEMBERED = 8 << 10


class Guard:
    """Judges commands; *actions* has ``allow``, ``block`` or ``deny`` by a rule's name, in place of its own action."""

    def __init__(self, actions: Mapping[str, str] = {}) -> None:  # noqa: B006
        if unknown := sorted(set(actions) - set(RULES)):
            raise ValueError(f"no rule is called {unknown[0]!r}")
        self._actions = {name: str(rule.action) for name, rule in RULES.items()} | dict(actions)

    def judge(self, command: Command, script: bytes | None, platform: str) -> tuple[Finding, ...]:
        """Return what speaks against *command* on a machine of *platform*, the worst first; nothing: it passes.

        *script* is the content of the command's script, where it has one. Pure; bounded in time and memory: a text that
        is longer than 256 KiB, or that takes too many steps, is looked at as one that can't be parsed.
        """
        found = dict.fromkeys(each for grammar in _grammars(platform) for each in _judged(command, script, grammar))
        return tuple(sorted(self._findings(found), key=lambda finding: finding.action != Action.DENY))

    def _findings(self, found: Iterable[tuple[str, str]]) -> Iterable[Finding]:
        for name, where in found:
            if (action := self._actions[name]) != _ALLOW:
                yield Finding(name, Action(action), RULES[name].why, where)


def _grammars(platform: str) -> tuple[Grammar, ...]:
    system = platform.partition("/")[0]
    if system == "windows":
        return (Grammar.POWERSHELL,)
    return (Grammar.BASH,) if system in ("linux", "darwin", "freebsd") else (Grammar.BASH, Grammar.POWERSHELL)


def _judged(command: Command, script: bytes | None, grammar: Grammar) -> Found:
    if command.script is not None:
        return _text(script.decode("utf-8", "replace"), grammar) if script is not None else ()
    if command.argv is not None:
        return _judge(command.argv, grammar)
    return _text(command.shell or "", grammar)


def _text(text: str, grammar: Grammar) -> Found:
    return _remembered(text, grammar) if len(text) <= _LONGEST_REMEMBERED else _judge(text, grammar)


@lru_cache(_REMEMBERED)
def _remembered(text: str, grammar: Grammar) -> Found:
    return _judge(text, grammar)


def _judge(what: str | tuple[str, ...], grammar: Grammar) -> Found:
    case = Case()
    bash = Bash(case)
    try:
        if isinstance(what, str):
            bash.run_text(what, State())
        else:
            bash.run_words(what, State())
    except TooMuch:
        case.suspicious = case.suspicious or suspicious(what if isinstance(what, str) else " ".join(what))
    if case.suspicious:
        case.report("unparsable", [case.suspicious])
    return tuple(case.found)
