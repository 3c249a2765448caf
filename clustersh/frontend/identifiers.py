"""How people name a job: ``[TARGET] UUID``, the uuid whole or its last digits."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

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


class JobWords(NamedTuple):
    """The jobs of the run *uuid* that are meant: on the machines of *target* ("": all), without those of *exclude*."""

    target: str
    uuid: str
    exclude: str = ""

    @property
    def machine(self) -> str:
        """The one machine that is meant, by its name; "" where it is something else."""
        return self.target if is_plain(self.target, self.exclude) else ""

    @property
    def all(self) -> bool:
        """Whether the whole run is meant."""
        return not self.target and not self.exclude

    @property
    def typed(self) -> str:
        """The same, to be typed once more."""
        options = ["-x", self.exclude] if self.exclude else []
        return shlex.join([*options, *filter(None, (self.target, self.uuid))])


def job_words(words: Sequence[str], exclude: str = "") -> JobWords:
    """Return the words of ``[-x EXPR] [TARGET] UUID``. Raises UsageError."""
    if len(words) > 2:
        raise UsageError(f"too many arguments: {' '.join(words[2:])}", ("give a target and a uuid",))
    target = words[0].strip() if len(words) == 2 else ""
    return JobWords(target.lower() if is_plain(target) else target, run_word(words[-1]), exclude.strip())
