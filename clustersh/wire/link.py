"""The link: messages between coordinator and agent, MessagePack in binary WebSocket frames.

A link's life::

    agent                                       coordinator
      | -- Hello (who, which store, its clock) -->  |
      | <-- Welcome (epoch, the machine's open jobs) |
      | -- per open job: Started or Ended --------> |     reconciliation: running, its result, or never seen
      |                                             |
      | <-- Start (epoch, start_by) --------------- |
      | -- Started ------------------------------>  |     journalled before the process exists
      | -- Ended (outcome, summary, head) ------->  |     repeated at every link-up until acknowledged
      | <-- Acknowledge --------------------------- |

Reads, stdin and cancels refer to a job by its uuid and are answered by the *request* number that they carry.
A job that the agent has never seen is answered `Ended` with `not-started`, and marked so that a late `Start` for it
can't run. Times called *clock* are the agent's boot clock in seconds: it counts while the machine sleeps and never
jumps, and `Start.start_by` is given in it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .codec import WireError
from .jobs import BlobRef, Command, Count, Outcome, OutputSummary, Percent, Seconds, ShortText, State
from .output import Stream

SUBPROTOCOL = "clustersh.1"
ALPN = (SUBPROTOCOL.encode(), b"http/1.1")
"""What an agent offers as it connects: HTTP is what it gets, and the other says what the connection is for."""
PATH = "/v1/link"
MAX_MESSAGE = 4 << 20
MAX_CHUNK = 256 << 10
MAX_READS = 512
"""Reads that a link may have unanswered: a few readers far ahead leave room for many that begin."""
PULSE_S = 10.0
"""Seconds between an agent's pulses; each carries its clock."""
REPLACED = 4003
"""The WebSocket close code for an agent that has to give way to a newer one with its key (`Hello.instance`)."""
VITALS_S = 30.0
"""Seconds between an agent's reports of its vitals."""
START_WITHIN_S = 10.0
"""Seconds in which an agent may begin a job it was sent."""


class _Message(msgspec.Struct, frozen=True, tag_field="is", omit_defaults=True):
    pass


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a machine says of itself. *platform* is like ``linux/amd64``, *os* and *arch* its halves.

    *distribution* is like ``debian-13``, *kernel* a release, *memory* in bytes. *executor* is what runs commands there.
    """

    platform: ShortText = ""
    hostname: ShortText = ""
    user: ShortText = ""
    home: ShortText = ""
    python: ShortText = ""
    os: ShortText = ""
    arch: ShortText = ""
    distribution: ShortText = ""
    kernel: ShortText = ""
    cpus: Count = 0
    memory: Count = 0
    executor: ShortText = ""


class Vitals(msgspec.Struct, frozen=True):
    """How a machine does: shares in percent in use, *load* over one, five and fifteen minutes, *uptime_s* seconds.

    *disk_home* is that of the agent user's home. *jobs* are running now. None: it can't be told there.
    """

    cpu: Percent
    memory: Percent
    disk_root: Percent | None = None
    disk_home: Percent | None = None
    jobs: Count = 0
    uptime_s: Seconds = 0.0
    load: tuple[Seconds, Seconds, Seconds] | None = None
    on_battery: bool | None = None


class Witness(msgspec.Struct, frozen=True):
    """The ledger's head when a message was made: its last record's number and SHA-256 (hex)."""

    seq: int
    hash: str


# -- agent to coordinator


class Hello(_Message, frozen=True, tag="hello"):
    """First on every link. *store* names the agent's job store; another one means that the old jobs are gone.

    *instance* names the agent's process: of two with one key, the one that came first is turned away (REPLACED).
    *unreached* as in Pulse.
    """

    version: ShortText
    instance: ShortText
    store: ShortText
    clock: Seconds
    facts: Facts = Facts()
    unreached: ShortText = ""


class Pulse(_Message, frozen=True, tag="pulse"):
    """Sent every PULSE_S: the agent's clock now. *unreached* says why a machine that it carries isn't reached.

    It is sent at once where that changes.
    """

    clock: Seconds
    unreached: ShortText = ""


class Started(_Message, frozen=True, tag="started"):
    """The job is journalled and will be spawned, or runs already."""

    uuid: ShortText


class Ended(_Message, frozen=True, tag="ended"):
    """The job's outcome, with the first bytes of its output; repeated until acknowledged."""

    uuid: ShortText
    outcome: Outcome
    output: OutputSummary = OutputSummary()
    duration_s: Seconds = 0.0
    head: bytes = b""
    head_runs: bytes = b""


class Chunk(_Message, frozen=True, tag="chunk"):
    """Answer to a Read: *data* from *offset* of the asked stream, *runs* when both streams were asked for.

    *size* is the stream's length so far; *ended* says that it grows no more.
    """

    request: Count
    offset: Count
    data: bytes
    size: Count
    ended: bool
    runs: bytes = b""


class StdinTaken(_Message, frozen=True, tag="stdin-taken"):
    """Answer to a Stdin: the process has taken everything before *offset*; *closed*: it takes no more."""

    request: Count
    offset: Count
    closed: bool = False


class WitnessList(_Message, frozen=True, tag="witness-list"):
    """Answer to a Witnesses: what some of the jobs were sent with; *next* is the *after* of the next page, "" none."""

    request: Count
    witnesses: tuple[Witness, ...]
    next: ShortText = ""


class VitalsReport(_Message, frozen=True, tag="vitals"):
    """Sent every VITALS_S, and as the answer to an AskVitals; *request* is 0 where nobody asked."""

    vitals: Vitals
    request: Count = 0


class Adopted(_Message, frozen=True, tag="adopted"):
    """Answer to an Adopt: it was done, or *problem* says why not, and *hint* what to do about it, for people."""

    request: Count
    problem: ShortText = ""
    hint: ShortText = ""


class HostList(_Message, frozen=True, tag="hosts"):
    """Answer to an AskHosts: the hosts that the agent's user has in an ssh configuration, by their names there."""

    request: Count
    hosts: tuple[ShortText, ...]


class Failed(_Message, frozen=True, tag="failed"):
    """A Read, Stdin, Witnesses, AskVitals, Adopt or AskHosts can't be answered; *type* is one of the problem types."""

    request: Count
    type: ShortText
    detail: ShortText


# -- coordinator to agent


class Welcome(_Message, frozen=True, tag="welcome"):
    """Answer to Hello: the link's *epoch*, and the uuids of the machine's open jobs, each to be accounted for."""

    epoch: int
    machine: str
    open: tuple[str, ...]
    witness: Witness


class Start(_Message, frozen=True, tag="start"):
    """Run a job, unless the agent's clock is past *start_by* or *epoch* is an older link's.

    Times in seconds; 0 is none. *files* names the manifest of what lies in the working directory.
    """

    epoch: int
    start_by: Seconds
    uuid: ShortText
    client: str
    command: Command
    witness: Witness
    cwd: str = ""
    env: dict[str, str] = {}
    timeout_s: Seconds = 0.0
    idle_timeout_s: Seconds = 0.0
    stdin: bool = False
    files: BlobRef | None = None
    keep_files: bool = False


class Cancel(_Message, frozen=True, tag="cancel"):
    """End the job's process tree; the outcome comes as Ended. Nothing happens where it has ended already."""

    uuid: ShortText


class Acknowledge(_Message, frozen=True, tag="acknowledge"):
    """The job's outcome is in the ledger."""

    uuid: ShortText
    witness: Witness


class Read(_Message, frozen=True, tag="read"):
    """Ask for up to *length* bytes of output from *offset*.

    With *wait_s*, an answer at the end of what there is waits that long for more. With *tail_lines* the answer is
    an empty Chunk whose offset is where those last lines begin.
    """

    request: Count
    uuid: ShortText
    stream: Stream
    offset: Count
    length: Count
    wait_s: Seconds = 0.0
    tail_lines: Count = 0


class StopRead(_Message, frozen=True, tag="stop-read"):
    """Nobody waits for that Read any more."""

    request: Count


class Witnesses(_Message, frozen=True, tag="witnesses"):
    """Ask which heads of the ledger the agent's jobs were sent with; *after* names the last job of the page before."""

    request: Count
    after: ShortText = ""


class AskVitals(_Message, frozen=True, tag="ask-vitals"):
    """Ask how the machine does right now."""

    request: Count


class Adopt(_Message, frozen=True, tag="adopt"):
    """Carry the machine that your ssh reaches as *destination*: let it in as *name*, by the join token *token*.

    Without a token, only see whether it is reached.
    """

    request: Count
    name: ShortText
    destination: ShortText
    token: ShortText = ""

    def __repr__(self) -> str:
        return f"Adopt({self.request}, {self.name!r}, {self.destination!r})"


class AskHosts(_Message, frozen=True, tag="ask-hosts"):
    """Ask which hosts your user has in an ssh configuration."""

    request: Count


class Stdin(_Message, frozen=True, tag="stdin"):
    """A piece of the job's stdin at *offset*; *end* closes it after the piece."""

    request: Count
    uuid: ShortText
    offset: Count
    data: bytes
    end: bool = False


FromAgent: TypeAlias = (
    Hello | Pulse | Started | Ended | Chunk | StdinTaken | WitnessList | VitalsReport | Adopted | HostList | Failed
)
FromCoordinator: TypeAlias = (
    Welcome | Start | Cancel | Acknowledge | Read | StopRead | Stdin | Witnesses | AskVitals | Adopt | AskHosts
)

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_coordinator: msgspec.msgpack.Decoder[FromCoordinator] = msgspec.msgpack.Decoder(FromCoordinator)

NEVER_SEEN = Outcome(State.NOT_STARTED, reason="the agent never saw it")


def encode(message: FromAgent | FromCoordinator) -> bytes:
    """Return *message* as one frame's payload."""
    return _encoder.encode(message)


def decode_from_agent(payload: bytes) -> FromAgent:
    """Return what an agent sent. Raises WireError."""
    try:
        return _from_agent.decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(str(error)) from error


def decode_from_coordinator(payload: bytes) -> FromCoordinator:
    """Return what a coordinator sent. Raises WireError."""
    try:
        return _from_coordinator.decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(str(error)) from error
