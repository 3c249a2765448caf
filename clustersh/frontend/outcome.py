"""What a job's end means to its caller: the exit status, and the words for it. Nothing here prints."""

from __future__ import annotations

from typing import NamedTuple

from ..cli.errors import CANCELLED, NOTHING_RAN, REFUSED, TIMED_OUT, UNCERTAIN
from ..wire.jobs import State
from ..wire.rest import Job
from ..wire.units import format_duration, format_size, format_timeout, parse_timestamp

TAIL_LINES = 100


class Message(NamedTuple):
    """One ``ERROR:`` line and its hints."""

    text: str
    hints: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """The exit status, and what is said on stderr after the output."""

    status: int
    messages: tuple[Message, ...] = ()


def verdict(job: Job, *, truncated: bool, idle_timeout_s: float = 0.0) -> Verdict:
    """Return what the end of *job* means; *truncated* where not all of its output was shown."""
    ended = _ended(job, idle_timeout_s)
    if not truncated:
        return ended
    return Verdict(ended.status or UNCERTAIN, (_cut(job), *ended.messages))


def exit_status(job: Job) -> int:
    """Return the status of a command that ended by itself: 128+N for signal N, 1 for codes that don't fit a byte."""
    if job.signal is not None:
        return 128 + job.signal
    code = job.exit_code or 0
    return code if 0 <= code <= 255 else 1


def _ended(job: Job, idle_timeout_s: float) -> Verdict:
    match job.status:
        case State.COMPLETED | State.FAILED if job.exit_code is not None or job.signal is not None:
            return Verdict(exit_status(job))
        case State.TIMED_OUT:
            return Verdict(TIMED_OUT, (Message(_timed_out(job, idle_timeout_s)),))
        case State.CANCELLED:
            return Verdict(CANCELLED, (Message(f"command cancelled{_after(job)}"),))
        case State.INTERRUPTED:
            return Verdict(UNCERTAIN, (_interrupted(job),))
        case State.LOST:
            text = f"the record of {job.uuid} on {job.machine} is lost{_because(job)}; the command may have run"
            return Verdict(UNCERTAIN, (Message(text, ("look at what it did before running it again",)),))
        case State.NOT_STARTED:
            return Verdict(NOTHING_RAN, (Message(f"command not started on {job.machine}{_because(job)}"),))
        case State.REFUSED:
            return Verdict(REFUSED, (Message(f"command refused on {job.machine}{_because(job)}"),))
    return Verdict(UNCERTAIN, (Message(f"command {job.status} on {job.machine}{_because(job)}"),))


def _cut(job: Job) -> Message:
    cat = f"clustersh cat {job.machine} {job.uuid}"
    return Message(
        f"output length exceeded limit, use {cat} to read output.",
        (f"{format_size(job.output_bytes)}, {_result(job)}{_after(job)}; its end: {cat} --tail {TAIL_LINES}",),
    )


def _timed_out(job: Job, idle_timeout_s: float) -> str:
    ran_out = job.timeout_s and (job.duration_s is None or job.duration_s >= job.timeout_s)
    if idle_timeout_s and not ran_out:
        return f"command timed out: no output for {format_timeout(idle_timeout_s)}"
    limit = job.timeout_s or job.duration_s
    return f"command timed out after {format_timeout(limit)}" if limit else "command timed out"


def _interrupted(job: Job) -> Message:
    return Message(
        f"the agent on {job.machine} restarted{_after(job)}, and the command with it ended",
        (f"its output so far: clustersh cat {job.machine} {job.uuid}",),
    )


def _result(job: Job) -> str:
    if job.exit_code is not None:
        return f"exit {job.exit_code}"
    if job.signal is not None and job.status is State.FAILED:
        return f"signal {job.signal}"
    return _STATE_WORDS.get(job.status, str(job.status))


def _after(job: Job) -> str:
    return "" if job.duration_s is None else f" after {format_duration(job.duration_s)}"


def _because(job: Job) -> str:
    return f": {job.reason}" if job.reason else ""


_STATE_WORDS = {
    State.TIMED_OUT: "timed out",
    State.INTERRUPTED: "failed (agent restarted)",
    State.NOT_STARTED: "not started",
}


def status_words(job: Job, now: float) -> str:
    """Return the status of *job* as tables say it, at the wall-clock time *now*: ``failed (exit 2) after 3s``."""
    match job.status:
        case State.REQUESTED:
            return "starting"
        case State.RUNNING:
            since = parse_timestamp(job.started or job.requested)
            return f"running for {format_duration(max(0.0, now - since))}"
        case State.FAILED:
            cause = _result(job) if job.reason is None else job.reason
            return f"failed ({cause}){_after(job)}"
        case State.COMPLETED | State.TIMED_OUT | State.CANCELLED:
            return f"{_STATE_WORDS.get(job.status, job.status)}{_after(job)}"
        case State.NOT_STARTED | State.REFUSED | State.LOST:
            reason = f" ({job.reason})" if job.reason else ""
            return f"{_STATE_WORDS.get(job.status, job.status)}{reason}"
    return _STATE_WORDS.get(job.status, str(job.status))
