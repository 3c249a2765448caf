"""The built-in placement policy: the machines with the lowest scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from ...wire.link import Vitals
from ...wire.units import format_duration
from . import Candidate, Choice, IPlacement
from .scores import cpu, disk, fresh, placing_score, step


@implementer(IPlacement)
class LeastLoaded:
    """Lowest score first. Machines of which nothing is known now come after, those on battery last."""

    name = "least-loaded"

    def choose(self, candidates: Sequence[Candidate], pick: int) -> Sequence[Choice]:
        """Return the *pick* best of *candidates*; of equal ones those that were chosen longest ago."""
        best = sorted(candidates, key=_rank)[:pick]
        return [Choice(each.id, _why(each, candidates)) for each in best]


def _rank(candidate: Candidate) -> tuple[bool, bool, float, int, str]:
    # Two digits, as users see them: what looks equal takes turns.
    score = round(placing_score(candidate), 2)
    return _on_battery(candidate), fresh(candidate) is None, score, candidate.last, candidate.name


def _on_battery(candidate: Candidate) -> bool:
    return bool(candidate.vitals and candidate.vitals.on_battery)


def _why(candidate: Candidate, group: Sequence[Candidate]) -> str:
    parts = [_load(candidate, group)]
    if candidate.recent:
        added = candidate.recent * step(candidate)
        parts.append(f"{_jobs(candidate.recent)} just placed there count {added:.2f} of it")
    if _on_battery(candidate):
        parts.append("on battery")
    return "; ".join(parts)


def _load(candidate: Candidate, group: Sequence[Candidate]) -> str:
    vitals, score = fresh(candidate), f"score {placing_score(candidate):.2f}"
    if vitals is None:
        told = "it has not told its load yet"
        if candidate.age_s is not None:
            told = f"its load is known only as of {format_duration(candidate.age_s)} ago"
        return f"{score}; {told}" + (f", {_jobs(candidate.running)} running" if candidate.running else "")
    known = [(each, said) for each in group if (said := fresh(each)) is not None]

    def mean(value: Callable[[Candidate, Vitals], float]) -> str:
        return f" (group {sum(value(*each) for each in known) / len(known):.0f}%)" if len(known) > 1 else ""

    believed = cpu(candidate)
    doubt = f", it says {vitals.cpu:.0f}% but has {_jobs(candidate.running)}" if believed > vitals.cpu else ""
    return (
        f"{score}; cpu {believed:.0f}%{mean(lambda each, _: cpu(each))}{doubt}, "
        f"memory {vitals.memory:.0f}%{mean(lambda _, said: said.memory)}, "
        f"disk {disk(vitals):.0f}%{mean(lambda _, said: disk(said))}"
    )


def _jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"
