"""Groups and labels that the policy names: whoever changes them changes what holds, so only an admin may."""

from __future__ import annotations

from collections.abc import Iterable

from ...config import PolicyConfig
from ...trust.identity import Identity, Role
from ...wire.problems import Kind, ProblemError
from .rulebook import named_groups
from .verdicts import LOOK


class NamedGroups:
    """Those that *config* names."""

    def __init__(self, config: PolicyConfig) -> None:
        self._groups, self._keys = named_groups(config)

    def check_group(self, caller: Identity, name: str) -> None:
        """Raise ProblemError (policy) unless *caller* may change that group."""
        if name in self._groups and caller.role is not Role.ADMIN:
            raise _admins(f"@{name}", f"clusterd groups add {name} MACHINES (or remove, delete)")

    def check_labels(self, caller: Identity, keys: Iterable[str]) -> None:
        """Raise ProblemError (policy) unless *caller* may change labels of those *keys*."""
        named = sorted(self._keys.intersection(keys))
        if named and caller.role is not Role.ADMIN:
            raise _admins(f"the label {named[0]}", f"clusterd label MACHINES {named[0]}=VALUE")


def _admins(what: str, command: str) -> ProblemError:
    return ProblemError(
        Kind.POLICY,
        f"refused by policy: {what} is in the policy, so only an admin changes it",
        hint=f"on the coordinator: {command}\n{LOOK}",
    )
