from __future__ import annotations

import msgspec
import pytest

from clustersh.frontend.outcome import status_words, verdict
from clustersh.wire.jobs import State
from clustersh.wire.rest import Job
from clustersh.wire.units import parse_timestamp

JOB = Job("01992f3e-7c1a-7abc-8def-0123c41f9a02", "ws1", "me", "x", "", State.COMPLETED, "2026-11-20T10:31:07Z")
NOW = parse_timestamp("2026-11-20T10:31:19Z")


def job(**changes: object) -> Job:
    return msgspec.structs.replace(JOB, **changes)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (job(exit_code=0, duration_s=80.2), "completed after 1m20s"),
        (job(status=State.FAILED, exit_code=2, duration_s=3.1), "failed (exit 2) after 3s"),
        (job(status=State.FAILED, signal=9, duration_s=3.1), "failed (signal 9) after 3s"),
        (job(status=State.TIMED_OUT, signal=9, duration_s=300.3), "timed out after 5m"),
        (job(status=State.CANCELLED, signal=15, duration_s=4.0), "cancelled after 4s"),
        (job(status=State.RUNNING), "running for 12s"),
        (job(status=State.INTERRUPTED, reason="the agent restarted", duration_s=4.0), "failed (agent restarted)"),
        (job(status=State.REQUESTED), "starting"),
        (job(status=State.NOT_STARTED, reason="asleep"), "not started (asleep)"),
        (job(status=State.LOST), "lost"),
    ],
)
def test_status_in_words(found: Job, words: str) -> None:
    assert status_words(found, NOW) == words


def test_a_clock_behind_the_coordinators_shows_no_negative_time() -> None:
    assert status_words(job(status=State.RUNNING), NOW - 3600) == "running for 0.0s"


def test_time_outs_say_which_limit_it_was() -> None:
    def told(**changes: object) -> str:
        return verdict(job(status=State.TIMED_OUT, **changes), truncated=False).messages[0].text

    assert told(reason="timed out after 5 minutes") == "command timed out after 5 minutes"
    assert told(reason="no output for 1 minute") == "command timed out: no output for 1 minute"
    assert told(signal=9, timeout_s=90.0) == "command timed out after 90 seconds"


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("ws1 is offline (last seen 2h ago)", "nothing ran, so repeating it is safe; clustersh machines shows what is"),
        ("no such directory: /srv is offline (", "--cwd takes a directory that is on ws1 and that its agent's user"),
        ("not allowed to enter the directory /root", "--cwd takes a directory that is on ws1"),
        ("can't use the directory ~ann: Permission denied", "--cwd takes a directory that is on ws1"),
        ("disk full on the machine (no inodes left)", "free space on ws1"),
        ("the job store can't be written: disk full on the machine", "free space on ws1"),
        ("can't run nginx: No such file or directory", "ws1 must have that program"),
        ("its files can't be fetched: no answer within 30s", "look at what the reason says of the files"),
        ("ssh lab: it does not answer within 20 seconds", "what the gateway's ssh needs is in the reason"),
        ("the executor 'docker' failed: it took over 10 seconds", "see its agent's log there"),
        ("this machine has no executor 'x', as [agent] executor says", "see its agent's log there"),
        ("the start came too late", "repeating it is safe: its link or its agent was not there in time"),
        ("the agent never saw it", "repeating it is safe: its link or its agent was not there in time"),
        ("the machine was forgotten", "to have it back, on it: clusteragent enroll"),
        ("the coordinator was restarted, and keeps no environment values", "ask for it once more, for ws1 alone"),
        ("something else", "nothing ran, so repeating it is safe; more: clustersh machines -l ws1"),
    ],
)
def test_what_to_do_about_what_did_not_start(reason: str, hint: str) -> None:
    told = verdict(job(status=State.NOT_STARTED, reason=reason), truncated=False)
    assert (told.status, told.messages[0].text) == (125, f"command not started: {reason}")
    [said] = told.messages[0].hints
    assert said.startswith("nothing ran") and hint in said
    assert ("shows what is online" in said) is reason.startswith("ws1 is offline")


def test_output_that_cannot_be_read_is_told_apart_from_a_limit() -> None:
    told = verdict(job(exit_code=0), truncated=True, unread="ws1 is offline")
    assert told.status == 123 and told.messages[0].text.endswith("can't be read now: ws1 is offline")


@pytest.mark.parametrize(("code", "status"), [(0, 0), (255, 255), (256, 1), (-1, 1), (3221225786, 1)])
def test_codes_that_fit_no_byte_count_as_1(code: int, status: int) -> None:
    assert verdict(job(status=State.FAILED, exit_code=code), truncated=False).status == status


@pytest.mark.parametrize(("code", "status"), [(0, 123), (3, 3)])
def test_a_cut_answer_keeps_a_failures_status(code: int, status: int) -> None:
    assert verdict(job(status=State.FAILED, exit_code=code), truncated=True).status == status
