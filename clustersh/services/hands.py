"""All that installing and removing a service changes goes through these: commands, files, folders, processes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..home import private_folder
from . import definition, users
from .commands import Commands, Ran
from .errors import cannot
from .spec import Scope, Spec


class Hands:
    """Does it. (`rehearsal.py` only notes what would be done.)"""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def ask(self, *words: str) -> Ran:
        """Run a command that changes nothing. Raises ServiceError where it can't be started at all."""
        return self._commands.try_to(*words)

    def try_to(self, *words: str) -> Ran:
        """Run a command, and return how that ended. Raises ServiceError where it can't be started at all."""
        return self._commands.try_to(*words)

    def run(self, *words: str) -> None:
        """Run a command. Raises ServiceError where that fails."""
        self._commands.run(*words)

    def run_with(self, name: str, content: bytes, *words: str) -> None:
        """Run a command; the word *name* becomes the path of a temporary file with *content*. Raises ServiceError."""
        with tempfile.TemporaryDirectory(prefix="clustersh-") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            self.run(*(str(path) if word == name else word for word in words))

    def make_home(self, spec: Spec) -> None:
        """See that the service has its state directory, and a system service its user. Raises ServiceError."""
        if spec.scope is Scope.SYSTEM:
            users.prepare(spec, self._commands)
        else:
            private_folder(spec.home)

    def make_folder(self, spec: Spec) -> None:
        """See that the service's own part of the state directory is there. Raises ServiceError."""
        folder = spec.folder
        try:
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True)
                _give_like(folder, spec.home)
        except OSError as error:
            raise cannot("make", folder, error) from error

    def write(self, path: Path, content: bytes, *, mode: int) -> bool:
        """Make *path* hold *content*, and return whether it is another than before. Raises ServiceError."""
        return definition.write(path, content, mode=mode)

    def remove(self, *paths: Path) -> None:
        """Remove those *paths* that are there. Raises ServiceError."""
        definition.remove(*paths)

    def remove_if_empty(self, folder: Path) -> None:
        """Remove *folder*, where nothing is left in it."""
        try:
            folder.rmdir()
        except OSError:
            return

    def send(self, pid: int, number: int) -> None:
        """Send a signal. Raises OSError."""
        os.kill(pid, number)


def _give_like(path: Path, other: Path) -> None:
    held = other.stat()
    if held.st_uid != os.geteuid():
        os.chown(path, held.st_uid, held.st_gid)
