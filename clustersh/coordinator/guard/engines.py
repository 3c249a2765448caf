"""The shells that a command may be for, or hand a text to, all judging for one case."""

from __future__ import annotations

from collections.abc import Sequence

from .bash import Bash
from .case import Case
from .cmd import run_cmd
from .cmdlets import Shells
from .grammars import Grammar
from .powershell import PowerShell
from .state import State


class Engines:
    """Judges texts and argument vectors of each grammar for *case*."""

    def __init__(self, case: Case) -> None:
        self._powershell = PowerShell(case, Shells(self._bash_text, self._cmd_text))
        self._bash = Bash(case, self._powershell.run_text)

    def run(self, what: str | Sequence[str], grammar: Grammar, stdin: str) -> str:
        """Run *what*, a text or an argument vector, with *stdin*; return what it prints."""
        engine = self._bash if grammar is Grammar.BASH else self._powershell
        return (
            engine.run_text(what, State(), stdin) if isinstance(what, str) else engine.run_words(what, State(), stdin)
        )

    def _bash_text(self, text: str, state: State) -> str:
        return self._bash.run_text(text, state)

    def _cmd_text(self, text: str, state: State) -> str:
        return run_cmd(self._powershell, text, state)
