"""The check ``command``: a shell line that has to end with 0, run by the shell that `clustersh run` uses there."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import threading
from time import monotonic
from typing import IO

from ..wire.units import format_duration
from .failed import Failed, of_os

_KEPT = 4096
"""Bytes of the output's end."""
_LAST_OUTPUT_S = 0.5
# PowerShell's own status is not that of the last command.
_ITS_STATUS = "\n$ok = $?; if ($null -ne $LASTEXITCODE) { exit $LASTEXITCODE }; if (-not $ok) { exit 1 }; exit 0"


def check_command(line: str, timeout_s: float) -> str:
    """Run *line*; what it printed last says why it failed."""
    begun = monotonic()
    try:
        process = subprocess.Popen(
            _argv(line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise of_os(error) from error
    assert process.stdout is not None
    output = _Tail(process.stdout)
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise Failed(f"still ran after {format_duration(timeout_s)}{output.last_line()}") from None
    if code:
        raise Failed((f"exit {code}" if code > 0 else f"signal {-code}") + output.last_line())
    return f"exit 0 in {round((monotonic() - begun) * 1000)} ms"


class _Tail:
    """Reads a command's output as it comes, and keeps its end.

    What the command left in the background may hold the pipe open: that is not waited for.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._end = b""
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def last_line(self) -> str:
        """Return the last line that isn't empty, led by a colon."""
        self._thread.join(_LAST_OUTPUT_S)
        lines = [line for line in self._end.decode("utf-8", "replace").splitlines() if line.strip()]
        return f": {lines[-1].strip()}" if lines else ""

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(pipe.fileno(), 1 << 16):
                self._end = (self._end + piece)[-_KEPT:]


def _argv(line: str) -> list[str]:
    from shutil import which

    if sys.platform == "win32":
        shell = which("pwsh") or "powershell.exe"
        encoded = base64.b64encode((line + _ITS_STATUS).encode("utf-16-le")).decode()
        return [shell, "-NoLogo", "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]
    return [which("bash") or which("sh") or "/bin/sh", "-c", line]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it started; what got away has the job's mark and ends with a cancel."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
