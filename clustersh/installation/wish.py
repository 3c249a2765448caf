"""What was asked for on the installer's line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..cli.console import Console
from ..services import Manager, Scope, ServiceError, choose
from ..trust.tokens import TOKEN_VARIABLE
from .layout import Layout
from .programs import Ran

_TOKEN_AGAIN = f"{TOKEN_VARIABLE}=... clusteragent enroll"
_APPROVE_LATER = "then here again: clusteragent enroll"
_FREE_NAME = re.compile(r"this one is free: --name (\S+)")


class Wish(NamedTuple):
    """*line* is the line that fetched the installer; *venv* the version that it made or found.

    A join *token* is not in *environ*, which services inherit.
    """

    layout: Layout
    scope: Scope
    environ: Mapping[str, str]
    console: Console
    venv: Path
    address: str
    ca_sha256: str
    name: str
    run_as: str
    service: bool
    line: str
    token: str

    @property
    def manager(self) -> Manager:
        """What manages services here."""
        return choose(self.environ, self.scope)

    def again(self, *more: str, token: bool = False) -> str:
        """Return the line to type for the same with *more* options, a name among them, and with a join *token*."""
        words = [*(("--system",) if self.scope is Scope.SYSTEM else ())]
        words += [*(("--run-as", self.run_as) if self.run_as else ()), *(() if self.service else ("--no-service",))]
        shell = [f"{TOKEN_VARIABLE}=..."] if token else []
        if self.scope is Scope.SYSTEM:  # as a word of sudo's own, others would see the token, and sudo logs it
            shell += ["sudo", *((f"--preserve-env={TOKEN_VARIABLE}",) if token else ())]
        options = shlex.join([*words, *more])
        return " ".join([f"{self.line} |", *shell, "bash", *(("-s --", options) if options else ())])

    def joined(self, ran: Ran) -> Ran:
        """Return how pairing went. Raises ServiceError, whose hints are lines to copy, where it failed."""
        if ran.status == 0:
            return ran
        hints = tuple(hint for each in ran.hints if (hint := self._in_our_words(each)))
        raise ServiceError(ran.message or "the coordinator was not reached", hints)

    def _in_our_words(self, hint: str) -> str:
        """Return a program's *hint* as what is to be done where that program is gone again; "" where it can't be."""
        if found := _FREE_NAME.fullmatch(hint):
            return f"this one is free: {self.again('--name', found[1])}"
        if _APPROVE_LATER in hint:  # the key that would be let in goes with what failed
            return ""
        named = ("--name", self.name) if self.name else ()
        before, needs_token, _ = hint.partition(_TOKEN_AGAIN)
        return f"{before}{self.again(*named, token=True)}" if needs_token else hint


def quietly(undo: Callable[[], object]) -> Callable[[], None]:
    """Return *undo* as one that fails in silence: what made it necessary is what is to be told."""

    def undone() -> None:
        try:
            undo()
        except (ServiceError, OSError):
            return

    return undone
