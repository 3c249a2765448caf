"""The console programs of a version, run as whom the service runs as."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..services import Scope, ServiceError, Spec
from ..services.users import account


class Ran(NamedTuple):
    """How a program ended; *err* is without its ``ERROR:`` and ``hint:`` lines, which are *message* and *hints*."""

    status: int
    out: str
    message: str
    hints: tuple[str, ...]

    def check(self) -> str:
        """Return what it printed. Raises ServiceError where it failed."""
        if self.status != 0:
            raise ServiceError(self.message or f"exit {self.status}", self.hints)
        return self.out


class Programs:
    """Runs programs in the folder *bin*; whatever else they say on stderr goes to *tell*, at once."""

    def __init__(self, bin_: Path, environ: Mapping[str, str], tell: Callable[[str], None], spec: Spec | None) -> None:
        self._bin = bin_
        self._tell = tell
        self._environ, self._as = dict(environ), dict[str, Any]()
        if spec is not None and spec.scope is Scope.SYSTEM and sys.platform != "win32":
            self._environ["CLUSTERSH_HOME"] = str(spec.home)
            self._become(spec.user)

    def run(self, *words: str, **more: str) -> Ran:
        """Run a program to its end, with *more* in its environment. Raises ServiceError where it can't be started."""
        command = [str(self._bin / words[0]), *words[1:]]
        try:
            process = subprocess.Popen(
                command,
                env={**self._environ, **more},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=os.sep,
                **self._as,
            )
        except OSError as error:
            raise ServiceError(f"can't run {command[0]}: {error.strerror}") from error
        message, hints = "", list[str]()
        with process:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stderr:
                if line.startswith("ERROR: "):
                    message = line.removeprefix("ERROR: ").rstrip("\n")
                elif line.startswith("hint: "):
                    hints.append(line.removeprefix("hint: ").rstrip("\n"))
                else:
                    self._tell(line)
            # It is no more than a pipe holds, so that it could not wait for us meanwhile.
            out = process.stdout.read()
        return Ran(process.returncode, out, message, tuple(hints))

    def _become(self, user: str) -> None:
        ids = account(user)
        if ids is None:
            raise ServiceError(f"there is no user called {user}", kind="bad-request")
        import pwd

        self._environ["HOME"] = pwd.getpwnam(user).pw_dir
        if ids[0] != os.getuid():
            self._as = {"user": ids[0], "group": ids[1], "extra_groups": os.getgrouplist(user, ids[1])}
