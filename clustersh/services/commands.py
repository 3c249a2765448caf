"""The programs that a manager of services brings (systemctl, launchctl, ...), run to their end."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from ..cli.text import printable
from .errors import ServiceError

_WAIT_S = 180.0
_SHOWN = 300


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Commands:
    """Runs commands with *environ*, without input."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)

    def try_to(self, *words: str) -> Ran:
        """Run *words* and return how that ended. Raises ServiceError where the program can't be started at all."""
        try:
            ran = subprocess.run(
                words,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_WAIT_S,
                check=False,
                cwd=os.sep,
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"{shlex.join(words)} did not end in {_WAIT_S:g}s", kind="unavailable") from error
        except OSError as error:
            raise ServiceError(f"can't run {words[0]}: {error.strerror}", kind="unavailable") from error
        return Ran(ran.returncode, ran.stdout.decode("utf-8", "replace"), ran.stderr.decode("utf-8", "replace"))

    def run(self, *words: str) -> str:
        """Run *words* and return what was printed. Raises ServiceError where that fails."""
        ran = self.try_to(*words)
        if ran.status != 0:
            raise failed(words, ran)
        return ran.out


def failed(words: tuple[str, ...], ran: Ran) -> ServiceError:
    """Return the error that says how *words* failed, with the last line of what they said."""
    lines = [line.strip() for line in (ran.err or ran.out).splitlines() if line.strip()]
    said = printable(lines[-1])[:_SHOWN] if lines else f"exit {ran.status}"
    return ServiceError(f"{shlex.join(words)} failed: {said}", kind="unavailable")
