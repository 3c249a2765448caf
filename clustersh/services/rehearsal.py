"""``service --dry-run``: the same way as an installation or a removal goes, but nothing is changed, only noted."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Literal

import msgspec

from . import definition, users
from .commands import Commands, Ran
from .hands import Hands
from .spec import Scope, Spec


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """What would be done: a path that is made, written (with that *content*) or removed, or a command that is run."""

    do: Literal["make", "write", "remove", "run"]
    what: str
    content: str = ""

    def __str__(self) -> str:
        lines = "".join(f"  {line}\n" if line else "\n" for line in self.content.splitlines())
        return f"Would {self.do} {self.what}{':' if lines else ''}\n{lines}"


class Rehearsal(Hands):
    """Notes the *steps*; what only asks is asked."""

    def __init__(self, commands: Commands) -> None:
        super().__init__(commands)
        self.steps: list[Step] = []

    def try_to(self, *words: str) -> Ran:
        self.run(*words)
        return Ran(0, "", "")

    def run(self, *words: str) -> None:
        self.steps.append(Step("run", shlex.join(words)))

    def run_with(self, name: str, content: bytes, *words: str) -> None:
        self.run(*words)

    def make_home(self, spec: Spec) -> None:
        if spec.scope is Scope.SYSTEM:
            if make := users.making(spec):
                self.run(*make)
            users.check(spec)
        self._note_folder(spec.home)

    def make_folder(self, spec: Spec) -> None:
        self._note_folder(spec.folder)

    def write(self, path: Path, content: bytes, *, mode: int) -> bool:
        text = content.decode()
        changed = definition.read(path) != text
        if changed:
            self.steps.append(Step("write", str(path), text))
        return changed

    def remove(self, *paths: Path) -> None:
        self.steps += [Step("remove", str(path)) for path in paths if path.exists() or path.is_symlink()]

    def remove_if_empty(self, folder: Path) -> None:
        """It is seen only when it is so."""

    def send(self, pid: int, number: int) -> None:
        self.run("kill", "-s", signal.Signals(number).name.removeprefix("SIG"), str(pid))

    def _note_folder(self, folder: Path) -> None:
        if not folder.exists():
            self.steps.append(Step("make", str(folder)))
