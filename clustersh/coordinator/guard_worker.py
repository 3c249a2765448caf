"""The guard's worker: a process that judges what comes on its stdin, and answers on its stdout, one after the other.

It is started as ``judging.PROGRAM``. The parsers are C code that reads what clients send; here they can crash, or take
too long, and nothing else is lost. It ends with its stdin, and once it is ready it can open nothing.

A frame is its length (four bytes, the highest first) and so many bytes of msgpack. The first answer is an empty frame:
it is ready.
"""

from __future__ import annotations

import contextlib
import encodings.utf_16_le  # noqa: F401 - PowerShell's -EncodedCommand has it, and nothing can be imported later
import os
import sys
import time
import unicodedata  # noqa: F401 - urllib.parse has it for hosts beyond ASCII
from typing import BinaryIO

import msgspec

from ..wire.jobs import MAX_SCRIPT, Command
from .guard import Finding, Guard

HEADER = 4
MAX_QUESTION = MAX_SCRIPT + (4 << 20)
"""Bytes: a script, or a command, which is 1 MiB at most, with room for what is said about it."""
MAX_ANSWER = 256 << 10
MEMORY = 1 << 30
"""Bytes of address space."""
CPU_S = 10
"""Seconds of processor time for one question, where the coordinator isn't there any more to look at its clock."""


class Question(msgspec.Struct, frozen=True, array_like=True):
    """What `Guard.judge` is asked."""

    command: Command
    script: bytes | None
    platform: str
    folder: str
    executor: str


def framed(content: bytes) -> bytes:
    """Return *content* as it travels."""
    return len(content).to_bytes(HEADER, "big") + content


def main() -> None:
    """Judge until stdin ends."""
    _settle()
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    guard = Guard()
    for platform in ("linux", "windows"):  # imports the parsers
        guard.judge(Command(shell="true"), None, platform)  # noqa: S604 - nothing is run
    _close_doors()
    content = b""
    while True:
        answers.write(framed(content))
        answers.flush()
        question = _next(questions)
        if question is None:
            return
        _limit("RLIMIT_CPU", int(time.process_time()) + CPU_S)
        content = msgspec.msgpack.encode(_judge(guard, question))


def _judge(guard: Guard, question: bytes) -> tuple[Finding, ...]:
    asked = msgspec.msgpack.decode(question, type=Question)
    return guard.judge(asked.command, asked.script, asked.platform, asked.folder, asked.executor)


def _next(questions: BinaryIO) -> bytes | None:
    """Return the next frame; None where there is none any more."""
    size = int.from_bytes(questions.read(HEADER), "big")
    if not 0 < size <= MAX_QUESTION:
        return None
    question = questions.read(size)
    return question if len(question) == size else None


def _settle() -> None:
    """Take what a process of its own needs; leave the terminal, and the folder, of who started it."""
    if hasattr(os, "setsid"):
        os.setsid()
    os.chdir(os.sep)
    _limit("RLIMIT_AS", MEMORY)
    _limit("RLIMIT_CORE", 0)


def _close_doors() -> None:
    """From now on nothing can be opened, written to a file, or started."""
    for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_NPROC"):
        _limit(name, 0, hard=0)


def _limit(name: str, most: int, hard: int | None = None) -> None:
    """Set a limit, where this system has it and lets us."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        which = getattr(resource, name)
        resource.setrlimit(which, (most, resource.getrlimit(which)[1] if hard is None else hard))
