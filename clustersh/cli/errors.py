"""What a command can end with besides its result, and which exit status says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire.problems import Problem

UNCERTAIN = 123
"""It ran, or may have, and this answer is not the whole story: don't repeat it, follow the hint."""
TIMED_OUT = 124
NOTHING_RAN = 125
REFUSED = 126
CANCELLED = 130
OUTPUT_CLOSED = 141


class CliError(Exception):
    """Ends a program with one ``ERROR:`` line, *hints* that say what to do next, and the exit *status*.

    *kind* is a `clustersh.wire.problems.Kind` (in ``--json``), *started* whether a command ran: None is unknown.
    """

    def __init__(
        self,
        message: str,
        hints: tuple[str, ...] = (),
        *,
        status: int = NOTHING_RAN,
        kind: str = "internal",
        uuid: str = "",
        started: bool | None = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints
        self.status = status
        self.kind = kind
        self.uuid = uuid
        self.started = started

    def document(self) -> Mapping[str, object]:
        """The error as ``--json`` prints it."""
        return {
            "error": {
                "type": self.kind,
                "message": self.message,
                "hint": "\n".join(self.hints) or None,
                "uuid": self.uuid or None,
                "started": self.started,
            }
        }


class UsageError(CliError):
    """The arguments make no sense; nothing was sent."""

    def __init__(self, message: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message, hints, kind="bad-request")


class OutputClosed(Exception):
    """Whoever read our output stopped: the program ends quietly."""


class Answer(Exception):
    """A text that was asked for instead of the command (``--help``, ``--version``)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def from_problem(problem: Problem) -> CliError:
    """Return what to tell a user of a peer's *problem*."""
    return CliError(
        problem.detail or problem.title or problem.type,
        tuple(line for line in problem.hint.splitlines() if line.strip()),
        status=problem_status(problem),
        kind=problem.type,
        uuid=problem.uuid,
        started=problem.started,
    )


def problem_status(problem: Problem) -> int:
    """Return the exit status for *problem*: did a command run, may it have, or did a policy refuse it?"""
    if problem.type == "policy":
        return REFUSED
    return NOTHING_RAN if problem.started is False else UNCERTAIN
