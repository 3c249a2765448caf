"""A machine's status in the words of tables."""

from __future__ import annotations

from ..wire.fleet import PlannedMachine
from ..wire.rest import Machine
from ..wire.units import format_duration, parse_timestamp


def status(machine: Machine | PlannedMachine, now: float) -> str:
    """Return the machine's status as tables say it: ``offline (last seen 2h ago)``, ``unreachable (REASON)``."""
    notes = []
    if machine.unreached:
        notes.append(machine.unreached)
    elif machine.status != "online":
        notes.append("never seen" if machine.last_seen is None else f"last seen {ago(machine.last_seen, now)}")
    if isinstance(machine, Machine) and machine.new:
        notes.append("new")
    return f"{machine.status} ({', '.join(notes)})" if notes else machine.status


def ago(when: str, now: float) -> str:
    """Return how long before *now* *when* was, in words."""
    seconds = max(0.0, now - parse_timestamp(when))
    for unit in (86400, 3600, 60, 1):
        if seconds >= unit:
            return f"{format_duration(seconds // unit * unit)} ago"
    return "just now"
