"""Ledger records in words: what happened, who did it, where, and the rest."""

from __future__ import annotations

from typing import NamedTuple

from ..wire.ids import short
from ..wire.jobs import Outcome
from ..wire.units import format_duration
from .records import (
    Accepted,
    BatchBegun,
    CancelRequested,
    Enrolled,
    Forgotten,
    GroupAdded,
    GroupDeleted,
    GroupRemoved,
    JobEnded,
    Labelled,
    MachineRef,
    Orphan,
    PolicyOverridden,
    Record,
    Renamed,
    Repaired,
    Revoked,
    RunRefused,
    RunRequested,
    RunStopped,
    StoreSeen,
    Summary,
    TailnetSeen,
    TokenCreated,
    TokenRevoked,
)


class Words(NamedTuple):
    """A record as a row of a table."""

    what: str
    who: str
    where: str
    details: str


def describe(record: Record) -> Words:
    """Return *record* in words."""
    match record:
        case RunRequested():
            return Words(f"run {short(record.uuid)}", record.client, _names(record.machines), record.command.text)
        case BatchBegun():
            return Words(f"batch {short(record.uuid)}", "", "", f"machines: {len(record.machine_ids)}")
        case RunStopped():
            return Words(f"stopped {short(record.uuid)}", "", "", record.reason)
        case RunRefused():
            what = f"refused {short(record.uuid)}"
            return Words(what, record.client, record.target, f"{record.problem.detail}: {record.command.text}")
        case PolicyOverridden():
            what = f"overridden {short(record.uuid)}"
            return Words(what, record.client, "", f"{', '.join(record.rules)}; allowed by {record.approver}")
        case JobEnded():
            lasted = f" after {format_duration(record.duration_s)}" if record.started else ""
            return Words(f"ended {short(record.uuid)}", "", record.machine, _outcome(record.outcome) + lasted)
        case CancelRequested():
            return Words(f"cancel {short(record.uuid)}", record.client, _names(record.machines), "")
        case Orphan():
            return Words(f"orphan {short(record.uuid)}", "", record.machine, _outcome(record.outcome))
        case Enrolled():
            return Words("enrolled", record.name, "", f"{_joined(record)}, key {record.fingerprint[:16]}")
        case Renamed():
            return Words("renamed", record.name, "", f"was {record.before}; {_joined(record)}")
        case Revoked() | Forgotten():
            what = "revoked" if isinstance(record, Revoked) else "forgotten"
            by = f"by {record.by}, " if record.by else ""
            return Words(what, record.name, "", f"{by}key {record.fingerprint[:16]}")
        case TokenCreated():
            uses = f"{record.uses} machine{'' if record.uses == 1 else 's'}"
            return Words(f"token {record.token}", "", "", f"for {uses} until {record.expires}")
        case TokenRevoked():
            return Words(f"token {record.token}", "", "", "revoked")
        case Accepted():
            return Words("accepted", record.client or "admin", record.machine, "")
        case GroupAdded() | GroupRemoved():
            what = "added to" if isinstance(record, GroupAdded) else "removed from"
            return Words(f"{what} @{record.group}", record.client, _names(record.machines), "")
        case GroupDeleted():
            return Words(f"deleted @{record.group}", record.client, "", "")
        case Labelled():
            changes = (f"{key}={value}" if value is not None else f"{key}-" for key, value in record.labels.items())
            return Words("labelled", record.client, _names(record.machines), " ".join(changes))
        case StoreSeen():
            return Words("store", "", record.machine, record.store)
        case TailnetSeen():
            return Words("tailnet", record.name, "", f"{record.login} on {record.node}")
        case Repaired():
            return Words("repaired", "", "", f"{record.cut} bytes cut from {record.file}, kept in {record.kept}")
        case Summary():
            return Words("summary", "", "", f"{record.what}: {record.count}")


def _names(machines: tuple[MachineRef, ...]) -> str:
    return " ".join(machine.name for machine in machines)


def _joined(record: Enrolled | Renamed) -> str:
    """How that key was let in."""
    by = f"{record.approved_by} {record.token}".strip()
    if isinstance(record, Enrolled) and (adoption := record.adoption) is not None:
        by = f"{by} of {adoption.client}, carried by {adoption.gateway} (ssh {adoption.destination})"
    role = f"{record.role} (AI agent)" if record.ai else record.role
    return f"{role} from {record.address or 'here'}, approved by {by}"


def _outcome(outcome: Outcome) -> str:
    if outcome.exit_code is not None:
        return str(outcome.state) if outcome.exit_code == 0 else f"{outcome.state} (exit {outcome.exit_code})"
    if outcome.signal is not None:
        return f"{outcome.state} (signal {outcome.signal})"
    return f"{outcome.state} ({outcome.reason})"
