"""Commands by PowerShell, on Windows: ``pwsh``, else ``powershell.exe``."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from pathlib import Path

from zope.interface import implementer

from ...home import private_folder
from . import ExecutorError, IExecutor, Task
from .own import own_words

LONGEST_LINE = 30_000
"""Characters in a Windows command line, with some room; a longer command goes into a file."""
_PROLOGUE = (
    "$OutputEncoding = [Console]::OutputEncoding = New-Object System.Text.UTF8Encoding $false; "
    "$ProgressPreference = 'SilentlyContinue'; "
)
# A native program's status is in $LASTEXITCODE; a failed cmdlet sets only $?.
_EPILOGUE = "\n$ok = $?; if ($null -ne $LASTEXITCODE) { exit $LASTEXITCODE }; if (-not $ok) { exit 1 }; exit 0"


@implementer(IExecutor)
class PowerShell:
    """Runs commands by the PowerShell at *program*."""

    name = "powershell"

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> PowerShell:
        """Return the executor for this machine's PowerShell. Raises ExecutorError."""
        path = environ.get("PATH") or environ.get("Path")
        found = shutil.which("pwsh", path=path) or shutil.which("powershell.exe", path=path)
        if not found:
            raise ExecutorError("there is no pwsh and no powershell.exe on this machine's PATH")
        return cls(found)

    def writes(self, task: Task) -> bool:
        """A script, or a command too long for a command line, is written to a file."""
        return task.script is not None or len(self._encoded(task, self._line(task))) > LONGEST_LINE

    def argv(self, task: Task) -> list[bytes]:
        """Return PowerShell's argument vector for *task*."""
        if task.script is not None:
            line = f"& {_quote(str(_write(task, task.script)))}"
        else:
            line = self._line(task)
            if len(self._encoded(task, line)) > LONGEST_LINE:
                # With a byte order mark, without which Windows PowerShell takes the file for ANSI.
                line = f"& {_quote(str(_write(task, line.encode('utf-8-sig'))))}"
        options = [b"-NoLogo", b"-NoProfile", b"-NonInteractive", b"-ExecutionPolicy", b"Bypass"]
        return [self._program.encode(), *options, b"-EncodedCommand", self._encoded(task, line)]

    def _line(self, task: Task) -> str:
        if task.command.argv is not None:
            return "& " + " ".join(_quote(word) for word in own_words(task.command.argv))
        return task.command.shell or ""

    def _encoded(self, task: Task, line: str) -> bytes:
        where = f"Set-Location -LiteralPath {_quote(str(task.cwd))}; "
        text = _PROLOGUE + where + line + _EPILOGUE
        return base64.b64encode(text.encode("utf-16-le", "surrogatepass"))


def _quote(text: str) -> str:
    """Return *text* as a PowerShell literal; its typographic quotes end a string, too."""
    return "'" + "".join(char * 2 if char in "'\u2018\u2019\u201a\u201b" else char for char in text) + "'"


def _write(task: Task, content: bytes) -> Path:
    path = private_folder(task.scratch) / "command.ps1"
    path.write_bytes(content)
    return path
