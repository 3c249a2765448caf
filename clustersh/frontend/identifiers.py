"""How people name a job: ``[TARGET] UUID``, the uuid whole or its last digits."""

from __future__ import annotations

from collections.abc import Sequence

from ..cli.errors import UsageError
from ..wire.fleet import is_plain
from ..wire.ids import uuid_ending

_HINT = "clustersh history lists them"


def run_word(text: str) -> str:
    """Return the run that *text* names, as REST takes it. Raises UsageError."""
    try:
        digits = uuid_ending(text)
    except ValueError as error:
        raise UsageError(str(error), (_HINT,)) from error
    if len(digits) < 32:
        return digits
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def job_words(words: Sequence[str]) -> tuple[str, str]:
    """Return (target, run) of ``[TARGET] UUID``; the target is "" where none was given. Raises UsageError."""
    if len(words) > 2:
        raise UsageError(f"too many arguments: {' '.join(words[2:])}", ("give a target and a uuid",))
    target = words[0].strip() if len(words) == 2 else ""
    return target.lower() if is_plain(target) else target, run_word(words[-1])
