"""The trusted list in memory: keys, and the machines and clients that they stand for."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace

import msgspec

from ..trust.identity import Role
from ..wire.tailnet import TailnetIdentity
from .records import Adoption, Enrolled, Renamed


@dataclass(frozen=True)
class Key:
    """One enrolled key. *ended* is when it was revoked or forgotten ("" while trusted); times are RFC 3339.

    *ai*: it is an AI agent's, for as long as it is trusted. *carrier* says which other machine's agent carries this
    machine, if it has none of its own.
    """

    fingerprint: str
    role: Role
    name: str
    id: str
    address: str
    enrolled: str
    ended: str = ""
    store: str = ""
    new: bool = False
    ai: bool = False
    tailnet: TailnetIdentity | None = None
    carrier: Adoption | None = None


@dataclass(frozen=True)
class Roster:
    """The trusted machines by name, and the names of those that are *new*: that nobody has named or accepted."""

    machines: tuple[Key, ...]
    names: tuple[str, ...]
    new: frozenset[str]


@dataclass
class KeyBook:
    """Every key there ever was, and what the trusted ones stand for."""

    by_fingerprint: dict[str, Key] = field(default_factory=dict)
    by_name: dict[tuple[Role, str], Key] = field(default_factory=dict)
    machines: dict[str, Key] = field(default_factory=dict)
    _roster: Roster | None = None

    @property
    def roster(self) -> Roster:
        """The trusted machines in order: made anew only where something has changed, because each run may ask."""
        if self._roster is None:
            machines = tuple(sorted(self.machines.values(), key=lambda key: key.name))
            names = tuple(key.name for key in machines)
            self._roster = Roster(machines, names, frozenset(key.name for key in machines if key.new))
        return self._roster

    def enter(self, key: Key) -> None:
        """Take in what *key* is now."""
        before = self.by_fingerprint.get(key.fingerprint)
        if before is not None:
            if not before.ended:  # else the name may be another's by now
                self.by_name.pop((before.role, before.name), None)
            key = replace(
                key,
                store=key.store or before.store,
                tailnet=key.tailnet or before.tailnet,
                enrolled=before.enrolled,
                ai=key.ai or before.ai,
                carrier=before.carrier,
            )
        self.by_fingerprint[key.fingerprint] = key
        self._roster = None
        if key.ended:
            self.machines.pop(key.id, None)
            return
        self.by_name[key.role, key.name] = key
        if key.role is Role.AGENT:
            self.machines[key.id] = key


def key_of(record: Enrolled | Renamed, time: str, *, new: bool) -> Key:
    """Return the key that *record*, of that *time*, lets in."""
    words = (record.fingerprint, Role(record.role), record.name, record.id, record.address, time)
    carrier = record.adoption if isinstance(record, Enrolled) else None
    return Key(*words, new=new, ai=record.ai, carrier=carrier)


def read_keys(connection: sqlite3.Connection) -> list[Key]:
    """Return every key that the index has, in the order in which they came."""
    rows = connection.execute("SELECT * FROM keys ORDER BY enrolled")
    return [
        Key(
            row["fingerprint"],
            Role(row["role"]),
            row["name"],
            row["id"],
            row["address"],
            row["enrolled"],
            row["ended"],
            row["store"],
            bool(row["new"]),
            bool(row["ai"]),
            TailnetIdentity(row["tailnet_login"], row["tailnet_node"]) if row["tailnet_login"] else None,
            msgspec.json.decode(row["carrier"], type=Adoption) if row["carrier"] else None,
        )
        for row in rows
    ]
