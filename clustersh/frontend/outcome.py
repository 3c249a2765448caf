"""What a job's end means to its caller: the exit status, and the words for it. Nothing here prints."""

from __future__ import annotations

from typing import NamedTuple

from ..cli.errors import CANCELLED, NOTHING_RAN, REFUSED, TIMED_OUT, UNCERTAIN
from ..wire.jobs import State
from ..wire.rest import Job
from ..wire.units import format_duration, format_size, format_timeout, parse_timestamp
from .not_started import hint_about

TAIL_LINES = 100
POLICY_HINT = "nothing ran; what the policy allows here: clustersh policy"


class Message(NamedTuple):
    """One ``ERROR:`` line and its hints."""

    text: str
    hints: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """The exit status, and what is said on stderr after the output."""

    status: int
    messages: tuple[Message, ...] = ()


def verdict(job: Job, *, truncated: bool, unread: str = "") -> Verdict:
    """Return what the end of *job* means; *truncated* where not all of its output was shown.

    *unread* says why output within the limit could not be read, if it couldn't.
    """
    ended = _ended(job)
    if not truncated:
        return ended
    return Verdict(ended.status or UNCERTAIN, (_unread(job, unread) if unread else cut_message(job), *ended.messages))


def exit_status(job: Job) -> int:
    """Return the status of a command that ended by itself: 128+N for signal N, 1 for codes that don't fit a byte."""
    if job.signal is not None:
        return 128 + job.signal
    code = job.exit_code or 0
    return code if 0 <= code <= 255 else 1


def _ended(job: Job) -> Verdict:
    match job.status:
        case State.COMPLETED | State.FAILED if job.exit_code is not None or job.signal is not None:
            return Verdict(exit_status(job))
        case State.TIMED_OUT:
            return Verdict(TIMED_OUT, (Message(_timed_out(job)),))
        case State.CANCELLED:
            return Verdict(CANCELLED, (Message(f"command cancelled{_after(job)}"),))
        case State.INTERRUPTED:
            return Verdict(UNCERTAIN, (_interrupted(job),))
        case State.LOST:
            text = f"the record of {job.uuid} on {job.machine} is lost{_because(job)}; the command may have run"
            return Verdict(UNCERTAIN, (Message(text, ("look at what it did before running it again",)),))
        case State.NOT_STARTED:
            hint = hint_about(job.reason or "").format(where=job.machine)
            return Verdict(NOTHING_RAN, (Message(f"command not started{_because(job)}", (hint,)),))
        case State.REFUSED:
            return Verdict(REFUSED, (Message(f"command refused{_because(job)}", (POLICY_HINT,)),))
    text = f"command {job.status} on {job.machine}{_because(job)}"
    return Verdict(UNCERTAIN, (Message(text, (_so_far(job),)),))


def cut_message(job: Job) -> Message:
    """Return what is said of a job whose output was cut: the command that reads it."""
    cat = f"clustersh cat {job.machine} {job.uuid}"
    return Message(
        f"output length exceeded limit, use {cat} to read output.",
        (f"{format_size(job.output_bytes)}, {_result(job)}{_after(job)}; its end: {cat} --tail {TAIL_LINES}",),
    )


def _unread(job: Job, why: str) -> Message:
    return Message(
        f"the command's output can't be read now: {why}",
        (f"{_result(job)}{_after(job)}; its output: clustersh cat {job.machine} {job.uuid}",),
    )


def _timed_out(job: Job) -> str:
    if job.reason:
        # The agent says which limit it was: "timed out after 5 minutes", "no output for 1 minute".
        return f"command {job.reason}" if job.reason.startswith("timed out") else f"command timed out: {job.reason}"
    return f"command timed out after {format_timeout(job.timeout_s)}" if job.timeout_s else "command timed out"


def _interrupted(job: Job) -> Message:
    return Message(
        f"{job.reason or 'the agent restarted'} on {job.machine}, which ended the command{_after(job)}",
        (_so_far(job),),
    )


def _so_far(job: Job) -> str:
    return f"its output so far: clustersh cat {job.machine} {job.uuid}"


def _result(job: Job) -> str:
    if job.exit_code is not None:
        return f"exit {job.exit_code}"
    if job.signal is not None and job.status is State.FAILED:
        return f"signal {job.signal}"
    if job.status is State.INTERRUPTED:
        return f"failed ({(job.reason or 'the agent restarted').removeprefix('the ')})"
    return _STATE_WORDS.get(job.status, str(job.status))


def _after(job: Job) -> str:
    return "" if job.duration_s is None else f" after {format_duration(job.duration_s)}"


def _because(job: Job) -> str:
    return f": {job.reason}" if job.reason else ""


_STATE_WORDS = {
    State.TIMED_OUT: "timed out",
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
    return _result(job)
