"""The shells that a command may be for, or hand a text to, all judging for one case."""

from __future__ import annotations

from collections.abc import Sequence

from .bash import Bash
from .case import Case
from .cmd import run_cmd
from .grammars import Grammar
from .powershell import PowerShell
from .state import State
from .values import UNKNOWN
from .windows_calls import Shells


class Engines:
    """Judges texts and argument vectors of each grammar for *case*."""

    def __init__(self, case: Case) -> None:
        self._powershell = PowerShell(case, Shells(self._bash_text, self._cmd_text))
        self._bash = Bash(case, self._powershell.run_text)

    def run(self, what: str | Sequence[str], grammar: Grammar, stdin: str, folder: str = UNKNOWN) -> str:
        """Run *what*, a text or an argument vector, with *stdin* in *folder*; return what it prints."""
        engine = self._bash if grammar is Grammar.BASH else self._powershell
        state = State(folder=folder)
        return engine.run_text(what, state, stdin) if isinstance(what, str) else engine.run_words(what, state, stdin)

    def _bash_text(self, text: str, state: State) -> str:
        return self._bash.run_text(text, state)

    def _cmd_text(self, text: str, state: State) -> str:
        return run_cmd(self._powershell, text, state)
