"""What machines' checks mean: one line each, the exit status, the document. Nothing here prints."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

import msgspec

from ..cli.errors import CANCELLED, NOTHING_RAN, REFUSED, UNCERTAIN
from ..cli.text import printable, shortened
from ..wire.checks import Checked, decode_answer
from ..wire.codec import WireError
from ..wire.fleet import LeftOut
from ..wire.jobs import State
from ..wire.rest import Job, to_bytes
from . import left_out
from .many.names import node_set
from .many.words import Kind, kind_of, last_seen, result

_SHOWN = 200
"""Characters of what stands in for an answer."""


class Health(enum.StrEnum):
    """What is known of a machine, in the order in which a summary counts."""

    OK = "ok"
    FAILED = "failed"
    OFFLINE = "offline"
    NOT_STARTED = "not-started"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


_OTHERWISE = {
    Kind.COMPLETED: Health.FAILED,
    Kind.FAILED: Health.FAILED,
    Kind.TIMED_OUT: Health.FAILED,
    Kind.CANCELLED: Health.CANCELLED,
    Kind.OFFLINE: Health.OFFLINE,
    Kind.NOT_STARTED: Health.NOT_STARTED,
    Kind.REFUSED: Health.REFUSED,
}
"""Without the probe's answer: what the job's end means."""


class CheckResult(msgspec.Struct, frozen=True):
    """One check on one machine: *said* is the machine's own words for how it went."""

    check: str
    subject: str
    ok: bool
    said: str


class MachineCheck(msgspec.Struct, frozen=True):
    """How one machine is. *reason* says why there are no *checks*, where it gave no answer."""

    machine: str
    status: Health
    reason: str | None
    duration_s: float | None
    checks: tuple[CheckResult, ...] = ()

    @property
    def line(self) -> str:
        """The one line that tells of it."""
        words = self.status.value if self.status is not Health.FAILED else "FAILED"
        if self.status is Health.OK:
            said = "; ".join(check.said for check in self.checks)
            return printable(f"{self.machine}: {words}" + (f" ({said})" if said else ""))
        failed = [f"{check.check} {check.subject}: {check.said}" for check in self.checks if not check.ok]
        if self.status is Health.OFFLINE:
            return printable(f"{self.machine}: {words}, {self.reason}")
        return printable(f"{self.machine}: {words.replace('-', ' ')}: {self.reason or '; '.join(failed)}")


class CheckReport(msgspec.Struct, frozen=True):
    """``clustersh check --json``: *ok* where every check of every machine passed. *left_out* as in Run."""

    uuid: str
    target: str
    ok: bool
    machines: tuple[MachineCheck, ...]
    left_out: LeftOut | None = None


def judge(job: Job, asked: Sequence[tuple[str, str]], unconfirmed: Collection[str] = ()) -> MachineCheck:
    """Return what the end of *job* says of its machine, which was *asked* for these checks; or that it has none yet."""
    kind = kind_of(job, unconfirmed)
    answer = _answer(job, asked) if job.status in (State.COMPLETED, State.FAILED) else None
    if answer is None:
        why = last_seen(job) or _reason(job, kind)
        return MachineCheck(job.machine, _OTHERWISE.get(kind, Health.UNKNOWN), why, job.duration_s)
    checks = tuple(
        CheckResult(name, subject, one.ok, one.said) for (name, subject), one in zip(asked, answer, strict=True)
    )
    # Both have to say so: the probe ends with 0 only where everything passed.
    passed = job.status is State.COMPLETED and all(one.ok for one in answer)
    contradicts = not passed and all(one.ok for one in answer)
    reason = f"its probe says that all is well, and ended with {result(job)}" if contradicts else None
    return MachineCheck(job.machine, Health.OK if passed else Health.FAILED, reason, job.duration_s, checks)


def exit_status(found: Sequence[MachineCheck]) -> int:
    """Return what the whole says: 0 all is well, 123 not known of some, 125 and 126 nothing was asked, else 1."""
    healths = {one.status for one in found}
    if Health.CANCELLED in healths:
        return CANCELLED
    if Health.UNKNOWN in healths:
        return UNCERTAIN
    if healths & {Health.OK, Health.FAILED}:
        return 0 if healths == {Health.OK} else 1
    return REFUSED if Health.REFUSED in healths else NOTHING_RAN


def summary(found: Sequence[MachineCheck], new: LeftOut | None = None) -> str:
    """Return the whole in one line: ``8 ok, 1 failed (web10), 1 offline (web11)``, and what *new* ones are left out."""
    parts = []
    for health in Health:
        names = [one.machine for one in found if one.status is health]
        if names:
            which = "" if health is Health.OK else f" ({node_set(names)})"
            parts.append(f"{len(names)} {health.value.replace('-', ' ')}{which}")
    return ", ".join((*parts, left_out.words(new)) if new else parts)


def _answer(job: Job, asked: Sequence[tuple[str, str]]) -> tuple[Checked, ...] | None:
    """Return what the probe says; None where it says nothing that answers what it was asked."""
    try:
        answer = decode_answer(to_bytes(job.stdout))
    except (WireError, ValueError):
        return None
    return answer if len(answer) == len(asked) else None


def _reason(job: Job, kind: Kind) -> str:
    if kind is Kind.UNCONFIRMED:
        return "it did not confirm the start"
    if job.truncated:
        return f"its answer is too long: clustersh cat {job.machine} {job.uuid}"
    if kind in (Kind.COMPLETED, Kind.FAILED):
        lines = to_bytes(job.stderr or job.stdout).decode("utf-8", "replace").strip().splitlines()
        said = f", {shortened(printable(lines[-1]), _SHOWN)}" if lines else ""
        return f"no answer of its probe (exit {job.exit_code}{said})" if job.signal is None else f"{result(job)}{said}"
    if kind is Kind.TIMED_OUT:
        return "its probe took too long"
    return {Kind.WAITING: "not heard of", Kind.RUNNING: "not heard of its end"}.get(kind) or job.reason or kind.value
