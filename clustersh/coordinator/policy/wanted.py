"""What an admin is told of a run that waits for an approval: all that the run would do, in few bytes."""

from __future__ import annotations

from collections.abc import Sequence

from ...trust.identity import Identity
from ...wire.policy import AllowedRun
from ...wire.rest import RunRequest
from ..registry import Key
from .verdicts import Verdict

MAX_TOLD = 100
"""Machines, and variables, that it names."""
MAX_COMMAND = 4096
"""Characters of its command that it keeps."""


def wanted(caller: Identity, asked: RunRequest, machines: Sequence[Key], verdict: Verdict) -> AllowedRun:
    """Return what *caller* asks for, which *verdict* stops."""
    return AllowedRun(
        client=caller.name,
        target=asked.target[:1000],
        machines=tuple(machine.name for machine in machines[:MAX_TOLD]),
        count=len(machines),
        command=_cut(asked.command.text, MAX_COMMAND),
        rules=verdict.rules,
        where=verdict.where,
        cwd=asked.cwd,
        env=tuple(_cut(name, 200) for name in sorted(asked.env)[:MAX_TOLD]),
        stdin=asked.stdin,
        files=asked.files is not None,
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
