"""A job's words: what is run, its states, and how it ended."""

from __future__ import annotations

import enum
import re
import shlex
from typing import Annotated, TypeAlias

import msgspec

MAX_COMMAND = 1 << 20
MAX_ENV = 1 << 20
MAX_SCRIPT = 16 << 20
HEAD_LIMIT = 128 << 10
"""Bytes of output that travel with a result, and that `run` shows unless told otherwise."""
DEFAULT_TIMEOUT_S = 300.0
PROBE = ("clusteragent", "probe")
"""The first words of an argument vector that the machine's own agent carries out: the probe of ``clustersh check``."""
SHA256_PATTERN = r"\A[0-9a-f]{64}\Z"

# Bounds on what a peer sends; decoding checks them.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Percent: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=100)]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern=SHA256_PATTERN)]
ShortText: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]
ExitCode: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 32) - 1)]
"""POSIX has 0 to 255, Windows 32 bits, signed or not."""
SignalNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=255)]


class State(enum.StrEnum):
    """Where a job is: two states on the way, then exactly one of the others."""

    REQUESTED = "requested"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    NOT_STARTED = "not-started"
    REFUSED = "refused"

    @property
    def ended(self) -> bool:
        return self not in (State.REQUESTED, State.RUNNING)


class BlobRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file's content, named by its SHA-256 (64 hex digits); *size* in bytes."""

    sha256: Sha256
    size: Count
    name: ShortText = ""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to run: exactly one of a shell line, an argument vector, or a script file."""

    shell: str | None = None
    argv: tuple[str, ...] | None = None
    script: BlobRef | None = None

    def __post_init__(self) -> None:
        given = [part for part in (self.shell, self.argv, self.script) if part is not None]
        if len(given) != 1 or self.argv == () or self.shell == "":
            raise ValueError("a command is exactly one of a shell line, an argument vector or a script")
        text = self.shell if self.shell is not None else "\0".join(self.argv or ())
        if "\0" in (self.shell or "") or any("\0" in word for word in self.argv or ()):
            raise ValueError("a command can't hold a NUL character")
        if len(text.encode()) > MAX_COMMAND:
            raise ValueError("a command is at most 1 MiB; send a longer one with --script")

    @property
    def text(self) -> str:
        """The command as people read it, in tables and the ledger."""
        if self.shell is not None:
            return self.shell
        if self.argv is not None:
            return shlex.join(self.argv)
        assert self.script is not None
        return f"(script {self.script.name or self.script.sha256[:12]})"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended: a final state, with exactly one of exit code, signal number or reason."""

    state: State
    exit_code: ExitCode | None = None
    signal: SignalNumber | None = None
    reason: ShortText | None = None

    def __post_init__(self) -> None:
        if not self.state.ended:
            raise ValueError(f"{self.state} is not how a job ends")
        if sum(part is not None for part in (self.exit_code, self.signal, self.reason)) != 1:
            raise ValueError("an outcome has exactly one of exit code, signal and reason")

    @classmethod
    def exited(cls, code: int) -> Outcome:
        """The outcome of a command that ended by itself with *code*."""
        return cls(State.FAILED if code else State.COMPLETED, exit_code=code)


_OFFLINE = re.compile(r"[^ ]{1,64} is offline \((.+)\)", re.DOTALL)


def offline_reason(machine: str, seen: str) -> str:
    """Return why a job isn't started on a machine that is away; *seen* is when it was there: ``last seen 2h ago``."""
    return f"{machine} is offline ({seen})"


def offline_since(reason: str) -> str:
    """Return when the machine was there, of a reason that `offline_reason` made; "" of any other."""
    found = _OFFLINE.fullmatch(reason)
    return found[1] if found else ""


class OutputSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much a job printed: bytes and SHA-256 (hex) of each stream.

    *unindexed* bytes at the end were recovered after a crash and count as stdout; *cut* says why the rest was not kept.
    """

    stdout_bytes: Count = 0
    stderr_bytes: Count = 0
    stdout_sha256: ShortText = ""
    stderr_sha256: ShortText = ""
    unindexed: Count = 0
    cut: ShortText = ""

    @property
    def total_bytes(self) -> int:
        return self.stdout_bytes + self.stderr_bytes
