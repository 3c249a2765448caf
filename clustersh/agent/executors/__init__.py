"""Executors: what turns a command into a process.

An executor is a plugin (docs/plugins.md): an object that provides `IExecutor` and Twisted's `IPlugin`, in a module of
`twisted.plugins`. The built-in ones are bash.py, powershell.py and, for machines that only have ssh, ssh.py; choice.py
finds the one that is asked for, and chosen.py asks it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from pathlib import Path

import msgspec
from zope.interface import Attribute, Interface

from ...wire.jobs import Command, Outcome
from ...wire.output import Stream


class ExecutorError(Exception):
    """The command can't be run here; the message says why, for people."""


class Task(msgspec.Struct, frozen=True):
    """What an executor is asked for.

    *cwd* is where the command runs; *scratch* a private folder for files that this takes, made by the executor if
    needed; *script* the content of the command's script, where it has one; *stdin* whether anything is sent to it.

    For executors that run it elsewhere: *asked_cwd* is the directory that was asked for ("": none), which is theirs
    to look for; *files* where the files that came with the job lie here; *env* the variables that were asked for. The
    process that the executor starts here has them in its environment.
    """

    command: Command
    cwd: Path
    scratch: Path
    script: bytes | None = None
    uuid: str = ""
    asked_cwd: str = ""
    files: Path | None = None
    env: Mapping[str, str] = {}
    stdin: bool = False


class IExecutor(Interface):
    """Turns commands into argument vectors."""

    name = Attribute("What ``[agent] executor`` calls it: lower-case letters, digits and dashes.")

    def argv(task: Task) -> list[bytes]:
        """Return the argument vector for *task*, its first word the program's path.

        It waits for nothing, but may write files into the scratch folder: it is called in a thread where `writes`
        says so. Raises ExecutorError.
        """

    def writes(task: Task) -> bool:
        """Whether `argv` will write files."""


class IElsewhere(IExecutor):
    """An executor whose commands run where the agent doesn't see their processes: in a container, on another host.

    What `argv` starts here carries their output, stdin and exit status.
    """

    def prepare(task: Task) -> Awaitable[None] | None:
        """Have all that *task* needs in place there, before `argv` is asked. Raises ExecutorError.

        It is cancelled where it takes over 30 seconds.
        """

    def end(uuid: str) -> Awaitable[None] | None:
        """End every process there of the job *uuid*, if there are any; what was started here is ended after it.

        Also asked for what an agent left that was killed. It is cancelled where it takes over 30 seconds.
        """


class ISpeaking(IExecutor):
    """An executor that speaks with what it starts: it says something first, and not all it hears is the command's."""

    def conversation(task: Task) -> IConversation:
        """Return what speaks with the process of *task*; asked after `argv`. Raises ExecutorError."""


class IConversation(Interface):
    """What is said between an executor and the process of one job."""

    first = Attribute("What the process reads before the job's own stdin (bytes).")
    ended = Attribute("How the command ended (Outcome), once that was heard: the process is ended then. None before.")

    def heard(stream: Stream, data: bytes) -> bytes:
        """Return what is to be the job's output, now that the process wrote *data*; b"": it writes no more."""

    def outcome(code: int | None, number: int | None) -> Outcome | Awaitable[Outcome]:
        """Return how the command ended, where its process has, by exit code or signal, before that was heard."""

    def close() -> None:
        """There is no process any more, or none came to be: called once, and last but for `outcome`."""
