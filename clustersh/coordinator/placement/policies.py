"""The placement policies there are, and asking one: where a plugin fails, or answers what can't be, nothing runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.logger import Logger

from ...plugins import by_name, installed
from ...wire.problems import Kind, ProblemError
from . import Candidate, Choice, IPlacement
from .least_loaded import LeastLoaded

MAX_WHY = 300
"""Characters of a policy's words that users see."""


class Policies:
    """The built-in policy and *plugins*, by name. A plugin without a proper name of its own is logged and left out."""

    _log = Logger()

    def __init__(self, plugins: Iterable[Any] = ()) -> None:
        built_in: dict[str, Any] = {LeastLoaded.name: LeastLoaded()}
        self._policies = {**built_in, **by_name("a placement policy", plugins, built_in)}

    @classmethod
    def installed(cls) -> Policies:
        """Return the built-in policy and all that Twisted's plugin loader finds; blocks."""
        return cls(installed(IPlacement))

    @property
    def names(self) -> list[str]:
        """What the policies are called."""
        return sorted(self._policies)

    def check(self, name: str) -> None:
        """Raise ProblemError unless there is a policy of that name."""
        if name not in self._policies:
            raise ProblemError(
                Kind.BAD_REQUEST,
                f"there is no placement policy {name[:64]!r}",
                hint=f"there are: {', '.join(self.names)}; the coordinator's log names plugins that can't be loaded",
            )

    def choose(self, name: str, candidates: Sequence[Candidate], pick: int) -> list[Choice]:
        """Return *pick* different ones of *candidates*. Raises ProblemError, also for whatever a plugin does wrong."""
        self.check(name)
        try:
            answer = self._policies[name].choose(tuple(candidates), pick)
            wrong = _what_is_wrong(answer, candidates, pick)
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its own affair
            self._log.failure("the placement policy {name} failed", name=name)
            raise _failed(name, f"{type(error).__name__}: {error}"[:MAX_WHY]) from error
        if wrong:
            self._log.error("the placement policy {name} answered {what}", name=name, what=wrong)
            raise _failed(name, f"it answered {wrong}")
        return [Choice(choice.id, choice.why[:MAX_WHY]) for choice in answer]


def _what_is_wrong(answer: Any, candidates: Sequence[Candidate], pick: int) -> str:
    """Return what is wrong with a policy's answer, "" for nothing."""
    if not isinstance(answer, list | tuple) or not all(isinstance(choice, Choice) for choice in answer):
        return "something other than a list of choices"
    if not all(isinstance(choice.id, str) and isinstance(choice.why, str) for choice in answer):
        return "choices that are not made of texts"
    if len(answer) != pick or len({choice.id for choice in answer}) != pick:
        return f"{len({choice.id for choice in answer})} machines where {pick} were asked for"
    if not {choice.id for choice in answer} <= {candidate.id for candidate in candidates}:
        return "a machine that was no candidate"
    return ""


def _failed(name: str, why: str) -> ProblemError:
    return ProblemError(
        Kind.INTERNAL,
        f"the placement policy {name!r} failed: {why}",
        hint="nothing ran; name the machine yourself, or have the coordinator's log looked at, which says more",
    )
