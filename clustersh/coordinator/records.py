"""What the ledger says: one Struct a kind of record, and the line each becomes.

A line is JSON: first ``seq``, ``time`` (RFC 3339, UTC) and ``prev`` (the SHA-256 of the line before, without its
newline), then the record's own fields, ``is`` naming its kind. No secret enters: of environment variables, only names.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ..wire.fleet import LeftOut, Pace
from ..wire.jobs import BlobRef, Command, Outcome, OutputSummary
from ..wire.problems import Problem

FIRST_PREV = "0" * 64


class _Record(msgspec.Struct, frozen=True, tag_field="is", omit_defaults=True):
    pass


class MachineRef(msgspec.Struct, frozen=True):
    """A machine as a record names it: the *name* it had then, and the *id* that stays."""

    name: str
    id: str


class RunRequested(_Record, frozen=True, tag="run"):
    """A client asked for a run, on this frozen list of machines. Times in seconds, 0 for none.

    *skipped* were offline and left out as asked; *selected* says why placement chose these. *raw* and *left_out* as in
    Run.
    """

    uuid: str
    client: str
    client_id: str
    key: str
    digest: str
    target: str
    machines: tuple[MachineRef, ...]
    command: Command
    cwd: str = ""
    env: tuple[str, ...] = ()
    timeout_s: float = 0.0
    idle_timeout_s: float = 0.0
    stdin: bool = False
    files: BlobRef | None = None
    keep_files: bool = False
    exclude: str = ""
    pace: Pace | None = None
    raw: bool = True
    skipped: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    left_out: LeftOut | None = None


class BatchBegun(_Record, frozen=True, tag="batch"):
    """The next machines of a run that goes in batches; nothing is sent to them before this is recorded."""

    uuid: str
    machine_ids: tuple[str, ...]


class RunStopped(_Record, frozen=True, tag="stopped"):
    """A run that goes in batches goes no further; the jobs that are left end as not-started."""

    uuid: str
    reason: str


class RunRefused(_Record, frozen=True, tag="refused"):
    """A client asked for a run and was refused; asked again with that key, it gets the same answer.

    Without a *key* it is not final: an admin was asked to allow the run.
    """

    uuid: str
    client: str
    client_id: str
    key: str
    digest: str
    target: str
    command: Command
    problem: Problem


class PolicyOverridden(_Record, frozen=True, tag="overridden"):
    """A client's run passed the *rules* that stop such ones: *approver* let it, ``itself`` where the client forced it.

    The run's own record follows.
    """

    uuid: str
    client: str
    client_id: str
    approver: str
    rules: tuple[str, ...]


class JobEnded(_Record, frozen=True, tag="ended"):
    """A job's one outcome. *started* is when the agent acknowledged its start (RFC 3339), "" where it never did."""

    uuid: str
    machine: str
    machine_id: str
    outcome: Outcome
    output: OutputSummary = OutputSummary()
    duration_s: float = 0.0
    started: str = ""


class CancelRequested(_Record, frozen=True, tag="cancel"):
    """A client asked to cancel a run on these machines."""

    uuid: str
    client: str
    client_id: str
    machines: tuple[MachineRef, ...]


class Orphan(_Record, frozen=True, tag="orphan"):
    """A machine reported the end of a job that the ledger doesn't know."""

    uuid: str
    machine: str
    machine_id: str
    outcome: Outcome


class Adoption(msgspec.Struct, frozen=True):
    """A machine without an agent: that of *gateway* carries it, by ssh to *destination*, as *client* asked for."""

    machine_id: str
    gateway: str
    destination: str
    client: str
    client_id: str


class Enrolled(_Record, frozen=True, tag="enrolled"):
    """A key was let in, as *role* under *name*; *approved_by* says by whom: ``admin``, ``open``, ``first start``.

    Or by ``token``, whose id is *token*: this record is that use of it; by ``adoption`` too, which says of what.
    *ai*: it is an AI agent's.
    """

    role: str
    name: str
    id: str
    fingerprint: str
    address: str
    approved_by: str
    token: str = ""
    adoption: Adoption | None = None
    ai: bool = False


class Renamed(_Record, frozen=True, tag="renamed"):
    """A key that was let in as *before* is called *name* now; its id is the same. The rest as in Enrolled."""

    role: str
    name: str
    id: str
    fingerprint: str
    address: str
    approved_by: str
    before: str
    token: str = ""
    ai: bool = False


def begins_new(record: Enrolled | Renamed) -> bool:
    """Whether what was let in so is *new*: part of no target but its name, until a client that may use it names it."""
    return record.approved_by in ("open", "adoption")


class Revoked(_Record, frozen=True, tag="revoked"):
    """A client's key is no longer trusted. *by* is ``itself`` where it logged out."""

    name: str
    id: str
    fingerprint: str
    by: str = ""


class Forgotten(_Record, frozen=True, tag="forgotten"):
    """A machine's key is no longer trusted, and its name is free. *by* is ``itself`` where it left."""

    name: str
    id: str
    fingerprint: str
    by: str = ""


class TokenCreated(_Record, frozen=True, tag="token"):
    """A join token was made, for that many *uses* until *expires* (RFC 3339). Its secret is not recorded."""

    token: str
    uses: int
    expires: str


class TokenRevoked(_Record, frozen=True, tag="token-revoked"):
    """A join token lets nobody in any more."""

    token: str


class Accepted(_Record, frozen=True, tag="accepted"):
    """A machine is new no more: an admin accepted it, or that *client* named it for a group, a label or a run.

    (A run on that machine alone says it by itself.)
    """

    machine: str
    machine_id: str
    client: str = ""
    client_id: str = ""


class GroupAdded(_Record, frozen=True, tag="group-added"):
    """A client put machines into a group, which begins to exist with its first."""

    group: str
    machines: tuple[MachineRef, ...]
    client: str
    client_id: str


class GroupRemoved(_Record, frozen=True, tag="group-removed"):
    """A client took machines out of a group."""

    group: str
    machines: tuple[MachineRef, ...]
    client: str
    client_id: str


class GroupDeleted(_Record, frozen=True, tag="group-deleted"):
    """A client ended a group."""

    group: str
    client: str
    client_id: str


class Labelled(_Record, frozen=True, tag="labelled"):
    """A client set labels of machines, and took others (None) away."""

    machines: tuple[MachineRef, ...]
    labels: dict[str, str | None]
    client: str
    client_id: str


class StoreSeen(_Record, frozen=True, tag="store"):
    """A machine came with this job store, which it had not before."""

    machine: str
    machine_id: str
    store: str


class TailnetSeen(_Record, frozen=True, tag="tailnet"):
    """Tailscale says who a client's or a machine's key comes from: *login* on *node*."""

    role: str
    name: str
    id: str
    fingerprint: str
    login: str
    node: str


class Repaired(_Record, frozen=True, tag="repaired"):
    """*cut* bytes at the end of *file* were no whole record; they are kept in *kept*."""

    file: str
    cut: int
    kept: str


class Summary(_Record, frozen=True, tag="summary"):
    """*count* events of a kind too frequent for a record each (refused strangers, wrong codes), up to now."""

    what: str
    count: int


Record: TypeAlias = (
    RunRequested
    | BatchBegun
    | RunStopped
    | RunRefused
    | PolicyOverridden
    | JobEnded
    | CancelRequested
    | Orphan
    | Enrolled
    | Renamed
    | Revoked
    | Forgotten
    | TokenCreated
    | TokenRevoked
    | Accepted
    | GroupAdded
    | GroupRemoved
    | GroupDeleted
    | Labelled
    | StoreSeen
    | TailnetSeen
    | Repaired
    | Summary
)


class Envelope(msgspec.Struct, frozen=True):
    """The part that every line begins with."""

    seq: int
    time: str
    prev: str


_records: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_envelopes = msgspec.json.Decoder(Envelope)


def to_line(envelope: Envelope, record: Record) -> bytes:
    """Return the ledger's line for *record*, without its newline."""
    return msgspec.json.encode(envelope)[:-1] + b"," + msgspec.json.encode(record)[1:]


def read_envelope(line: bytes) -> Envelope:
    """Return what *line* begins with. Raises msgspec.DecodeError."""
    return _envelopes.decode(line)


def read_record(line: bytes) -> Record:
    """Return the record in *line*. Raises msgspec.DecodeError."""
    return _records.decode(line)
