"""What the policy says of a run, and the words in which people are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...config import Force, RuleAction
from ...wire.policy import MachinesVerdict
from ...wire.problems import Kind, ProblemError
from .rulebook import strictest

_SHOWN = 5
LOOK = "what holds for you: clustersh policy"
ALLOWED = "an admin has allowed it, once: the same again with --force"


@dataclass(frozen=True)
class Stop:
    """A *rule* that found something: *where* are the words, *why* is what is wrong with them."""

    rule: str
    action: RuleAction
    why: str
    where: str


@dataclass(frozen=True)
class Ruling:
    """What is said of some of a run's *machines* (their names), which are alike: worst stop first, none passes."""

    machines: tuple[str, ...]
    platform: str
    stops: tuple[Stop, ...]
    force: Force

    @property
    def told(self) -> MachinesVerdict:
        """As REST tells it."""
        if not self.stops:
            return MachinesVerdict(self.machines, self.platform, "pass")
        worst = self.stops[0]
        return MachinesVerdict(self.machines, self.platform, worst.action, worst.rule, worst.why, worst.where)


@dataclass(frozen=True)
class Verdict:
    """What is said of a run. *unjudged*: its script is not on the coordinator."""

    rulings: tuple[Ruling, ...]
    unjudged: bool = False

    @property
    def worst(self) -> Ruling | None:
        """The ruling with the worst stop; None where all pass."""
        stopped = [ruling for ruling in self.rulings if ruling.stops]
        return max(stopped, key=lambda ruling: ruling.stops[0].action == "deny", default=None)

    @property
    def denied(self) -> bool:
        """Whether nothing passes it."""
        return self.worst is not None and self.worst.stops[0].action == "deny"

    @property
    def force(self) -> Force:
        """Who may force it: the strictest of what holds for the machines that it is stopped on."""
        return strictest(ruling.force for ruling in self.rulings if ruling.stops)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that stop it."""
        return tuple(self._found)

    @property
    def where(self) -> tuple[str, ...]:
        """The words that each of `rules` is about."""
        return tuple(self._found.values())

    @property
    def _found(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for ruling in self.rulings:
            for stop in ruling.stops:
                found.setdefault(stop.rule, stop.where)
        return dict(sorted(found.items()))


def refusal(verdict: Verdict, total: int, hint: str) -> ProblemError:
    """Return the refusal of a run on *total* machines; *hint* says what to do."""
    worst = verdict.worst
    assert worst is not None
    stop = worst.stops[0]
    detail = f"refused by policy: {stop.rule}: {stop.why}" + (f" ({stop.where})" if stop.where else "")
    partly = f"so it is on {listed(worst.machines)}, and nothing runs anywhere\n" if len(worst.machines) < total else ""
    return ProblemError(Kind.POLICY, detail, hint=partly + hint)


def no_script() -> ProblemError:
    """Return what is wrong where nobody could look at a script."""
    return ProblemError(Kind.UNKNOWN_BLOB, "the coordinator does not have the script", hint="send it again")


def advice(verdict: Verdict) -> str:
    """Return what to do about a refusal, where no code was made."""
    if verdict.denied:
        return f"nothing passes this rule, --force neither: ask who runs the coordinator\n{LOOK}"
    return {
        "self": "if that is meant: the same again with --force",
        "approve": "if that is meant: run it, which asks for an approval",
        "never": f"you may not force it: ask who runs the coordinator\n{LOOK}",
    }[verdict.force]


def listed(names: Sequence[str]) -> str:
    """Return *names* in a row, the last ones only as a number where they are many."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def worst_first(stops: Iterable[Stop]) -> tuple[Stop, ...]:
    """Return *stops* with those that deny before the others."""
    return tuple(sorted(stops, key=lambda stop: stop.action != "deny"))
