"""Which names are spoken for, and whether a key may have one."""

from __future__ import annotations

import itertools

from ..trust.identity import Role
from ..wire.ids import NAME_LENGTH, RESERVED_NAMES
from ..wire.problems import Kind, ProblemError
from .key_book import Key, KeyBook


class Claims:
    """The names of the keys in *book*, and of those that are just coming into it or can't be recorded as gone."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book
        self.joining: dict[str, tuple[Role, str]] = {}
        """By fingerprint, what the keys that are just being let in will be called."""
        self.unrecorded: dict[tuple[Role, str], Key] = {}
        """Keys that lost their trust although the ledger could not take that."""

    def holder(self, role: Role, name: str) -> str | None:
        """Return the fingerprint of the key that holds *name*, if one does."""
        key = self._book.by_name.get((role, name))
        return key.fingerprint if key else None

    def check(self, role: Role, name: str, fingerprint: str) -> None:
        """Raise ProblemError unless that key may join under that name."""
        known = self._book.by_fingerprint.get(fingerprint)
        if known is not None and (known.ended or known.role is not role):
            why = f"was {'forgotten' if role is Role.AGENT else 'revoked'}" if known.ended else f"is a {known.role}'s"
            raise ProblemError(Kind.UNTRUSTED, f"this key {why}", hint=join_again(role))
        if fingerprint in self.joining:
            raise ProblemError(Kind.UNAVAILABLE, "this key is just being let in", hint="ask again in a moment")
        if (role, name) in self.unrecorded:
            # Else a restart would trust two keys under one name, of which a revocation finds the last one only.
            raise ProblemError(
                Kind.NAME_TAKEN,
                f"the name {name} was taken from a key, but that could not be recorded yet",
                hint=f"choose another with --name, or have it recorded on the coordinator: {to_free(role, name)}",
            )
        if name in RESERVED_NAMES:
            raise ProblemError(Kind.NAME_TAKEN, f"the name {name} is taken", hint="choose another with --name")
        if not self._is_free(role, name) and self.holder(role, name) != fingerprint:
            raise ProblemError(
                Kind.NAME_TAKEN,
                f"the name {name} belongs to another key",
                hint=f"this one is free: --name {self.free_name(role, name)}\n"
                f"or take {name} over: on the coordinator, {to_free(role, name)}",
            )

    def is_ais(self, role: Role, name: str, fingerprint: str) -> bool:
        """Whether a key that joins so is an AI agent's: it is one already, or an earlier one of that name was."""
        known = self._book.by_fingerprint.get(fingerprint)
        named = (each for each in self._book.by_fingerprint.values() if (each.role, each.name) == (role, name))
        return any(each.ai for each in (*named, *([known] if known else [])))

    def _is_free(self, role: Role, name: str) -> bool:
        taken = (*self.joining.values(), *self.unrecorded)
        return self.holder(role, name) is None and (role, name) not in taken

    def free_name(self, role: Role, name: str) -> str:
        """Return the first of NAME-2, NAME-3, ... that nobody has."""
        before, at, last = name.rpartition("@")
        endings = (f"-{n}" for n in itertools.count(2))
        numbered = (f"{before}{at}{last[: NAME_LENGTH - len(ending)]}{ending}" for ending in endings)
        return next(each for each in numbered if self._is_free(role, each))


def to_free(role: Role, name: str) -> str:
    """Return the command that frees *name*."""
    return f"clusterd {'forget' if role is Role.AGENT else 'revoke'} {name}"


def join_again(role: Role) -> str:
    """Return what a key that isn't trusted does about it."""
    return "run: clusteragent enroll --again" if role is Role.AGENT else "run: clustersh login --again"
