"""The bodies of the REST interface; docs/rest.md lists the calls. Times are RFC 3339 in UTC, durations seconds."""

from __future__ import annotations

import base64

import msgspec

from .fleet import LeftOut, Pace, Placement, Target, is_plain
from .jobs import DEFAULT_TIMEOUT_S, HEAD_LIMIT, MAX_ENV, BlobRef, Command, Count, Sha256, State
from .link import Facts, Vitals
from .policy import AllowedRun
from .tailnet import TailnetIdentity, Tailscale
from .units import MAX_DURATION_S

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
FRAMES = "application/vnd.clustersh.frames"
"""Both streams in one body: frames of 1 byte (1 stdout, 2 stderr), 4 bytes of length (big-endian), and the data."""
MAX_BODY = 4 << 20
MAX_WAIT_S = 60.0
MAX_STDIN_PIECE = 256 << 10


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are not UTF-8."""

    base64: str


def text_or_base64(data: bytes) -> str | Base64:
    """Return *data* as JSON can hold it: its text, or base64 where it isn't UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Base64(base64.b64encode(data).decode())


def to_bytes(value: str | Base64) -> bytes:
    """Return the bytes that text_or_base64 was given. Raises ValueError."""
    if isinstance(value, Base64):
        return base64.b64decode(value.base64, validate=True)
    return value.encode()


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """POST /v1/runs, with an ``Idempotency-Key`` header; time-outs in seconds, 0 for none.

    *limit_bytes* is for the whole answer, shared fairly among the machines. *force* passes rules of the policy that
    block, where the client may.
    """

    target: Target
    command: Command
    cwd: str = ""
    env: dict[str, str] = {}
    timeout_s: float = DEFAULT_TIMEOUT_S
    idle_timeout_s: float = 0.0
    stdin: bool = False
    files: BlobRef | None = None
    keep_files: bool = False
    limit_bytes: Count = HEAD_LIMIT
    exclude: Target = ""
    skip_offline: bool = False
    pace: Pace | None = None
    placement: Placement | None = None
    force: bool = False

    @property
    def raw(self) -> bool:
        """Whether one machine was asked for, whose output is printed as it is."""
        return self.placement.raw if self.placement else is_plain(self.target, self.exclude)

    def __post_init__(self) -> None:
        for seconds in (self.timeout_s, self.idle_timeout_s):
            if not 0 <= seconds <= MAX_DURATION_S:
                raise ValueError("a time-out is between 0 (none) and 366 days")
        if "\0" in self.cwd or len(self.cwd) > 4096:
            raise ValueError("that working directory can't exist")
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError("an environment variable's name has no '=', and neither part a NUL")
            if name.startswith("CLUSTERSH_"):
                raise ValueError("environment variables that begin with CLUSTERSH_ are clustersh's own")
        if sum(len(name.encode()) + len(value.encode()) for name, value in self.env.items()) > MAX_ENV:
            raise ValueError("the environment is at most 1 MiB")


class Job(msgspec.Struct, frozen=True):
    """One run on one machine: the ``--json`` form of `run`, `wait`, `history`, and GET /v1/jobs.

    *command* is as people read it. *stdout* and *stderr* hold the first bytes up to the limit; *truncated* says that
    there is more (*output_bytes* in all). They are empty in lists, and while a job runs. In a folded answer *same_as*
    names the machine whose job printed the very same: the text stands only there.
    """

    uuid: str
    machine: str
    client: str
    command: str
    cwd: str
    status: State
    requested: str
    started: str | None = None
    finished: str | None = None
    duration_s: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    stdout: str | Base64 = ""
    stderr: str | Base64 = ""
    truncated: bool = False
    output_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    timeout_s: float = 0.0
    same_as: str | None = None


class Run(msgspec.Struct, frozen=True):
    """One request and its jobs. *unconfirmed* names the machines that did not acknowledge the start in time.

    *raw*: one machine was named, so its output is printed as it is. *skipped* names the offline machines that were left
    out, *selected* says why these were chosen, *stopped* why a run in batches went no further; *left_out* are new ones.
    """

    uuid: str
    client: str
    target: str
    command: str
    requested: str
    jobs: tuple[Job, ...]
    unconfirmed: tuple[str, ...] = ()
    raw: bool = True
    exclude: str = ""
    skipped: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    stopped: str | None = None
    left_out: LeftOut | None = None

    @property
    def ended(self) -> bool:
        return all(job.status.ended for job in self.jobs)


class Ends(msgspec.Struct, frozen=True):
    """GET /v1/runs/{id}/ends: the jobs that have ended since *after*, in that order.

    *next* is the ``after`` that follows. *ended*: the whole run has, and these are the last. *unconfirmed* as in Run.
    """

    jobs: tuple[Job, ...]
    next: int
    ended: bool
    unconfirmed: tuple[str, ...] = ()


class JobPage(msgspec.Struct, frozen=True):
    """GET /v1/jobs: newest first; *next* is the ``before`` of the page that follows, if any."""

    jobs: tuple[Job, ...]
    next: str | None = None


class Carrier(msgspec.Struct, frozen=True):
    """A machine without an agent of its own: that of *machine* runs its commands, by ssh to *destination*."""

    machine: str
    destination: str


class Machine(msgspec.Struct, frozen=True):
    """One line of `machines`. *status* is online, reconnecting, offline, or unreachable: *unreached* says why.

    *vitals* are *vitals_age_s* old; *score* is what placement goes by (lower is better); *latency_ms* is the
    link's round trip.
    """

    name: str
    id: str
    platform: str
    status: str
    last_seen: str | None = None
    new: bool = False
    address: str = ""
    fingerprint: str = ""
    version: str = ""
    enrolled: str = ""
    facts: Facts = Facts()
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    vitals: Vitals | None = None
    vitals_age_s: float | None = None
    score: float | None = None
    latency_ms: float | None = None
    tailscale: Tailscale | None = None
    tailnet: TailnetIdentity | None = None
    carrier: Carrier | None = None
    unreached: str | None = None


class Machines(msgspec.Struct, frozen=True):
    """GET /v1/machines."""

    machines: tuple[Machine, ...]


class Client(msgspec.Struct, frozen=True):
    """One line of `clusterd clients`; *ai*: it is an AI agent's."""

    name: str
    id: str
    fingerprint: str
    address: str
    enrolled: str
    revoked: str | None = None
    ai: bool = False
    tailnet: TailnetIdentity | None = None


class Clients(msgspec.Struct, frozen=True):
    """GET /v1/admin/clients."""

    clients: tuple[Client, ...]


class Whoami(msgspec.Struct, frozen=True):
    """GET /v1/whoami: who the coordinator takes the caller for."""

    name: str
    role: str
    id: str
    fingerprint: str
    coordinator_version: str
    machines: int
    online: int
    host: str = ""


class Cancelled(msgspec.Struct, frozen=True):
    """Answer to a cancel: the machines it was sent to, and those where the job had already ended."""

    uuid: str
    cancelled: tuple[str, ...]
    ended: tuple[str, ...] = ()


class StdinProgress(msgspec.Struct, frozen=True):
    """Answer to a piece of stdin: the process took all before *offset*; *closed*: it takes no more."""

    offset: int
    closed: bool = False


class BlobNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/blobs/missing: SHA-256 names; the answer holds those the coordinator lacks."""

    sha256: tuple[Sha256, ...]


class Pending(msgspec.Struct, frozen=True):
    """One line of `clusterd pending`: who waits for an approval; never the code. *age_s* in seconds.

    The *role* ``run`` is a client that wants to run what the policy stopped: *what* says it.
    """

    name: str
    role: str
    address: str
    age_s: float
    what: str = ""


class PendingList(msgspec.Struct, frozen=True):
    """GET /v1/admin/pending."""

    pending: tuple[Pending, ...]


class Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/admin/approve: the 8 digits an admin typed. *ai*: whoever has them is an AI agent.

    *dry_run*: only say whom it would let in.
    """

    code: str
    ai: bool = False
    dry_run: bool = False


class Approved(msgspec.Struct, frozen=True):
    """Whom an approval let in; *check* is the 4 digits that the other side shows too. *ai* as in Client.

    Or, with the role ``run``, what it *allowed* that client to run, once.
    """

    name: str
    role: str
    address: str = ""
    fingerprint: str = ""
    check: str = ""
    ai: bool = False
    allowed: AllowedRun | None = None


class NameOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """POST /v1/admin/revoke, /v1/admin/forget and /v1/admin/accept: a client's or a machine's name.

    *dry_run*: only say whether it could be done.
    """

    name: str
    dry_run: bool = False


class AuditPage(msgspec.Struct, frozen=True):
    """GET /v1/admin/audit: ledger records as they are, oldest first; *next* is the ``after`` that follows."""

    records: tuple[msgspec.Raw, ...]
    next: int | None = None


class Verified(msgspec.Struct, frozen=True):
    """GET /v1/admin/verify: how many records hang together, and the first that doesn't.

    With witnesses: *witnesses* is how many heads of the ledger the *machines* hold; *unasked* could not be asked.
    """

    records: int
    head_seq: int
    head_hash: str
    broken_seq: int | None = None
    problem: str = ""
    witnesses: int = 0
    machines: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True):
    """GET /health, over plain HTTP too."""

    service: str
    version: str
